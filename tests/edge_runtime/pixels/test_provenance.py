import io
import struct
import time
import zlib

import pytest
from PIL import ExifTags, Image, PngImagePlugin

from edge_runtime.errors import PictureError
from edge_runtime.pixels.provenance import ClaimKind, ai_claim

PICTURE = Image.linear_gradient("L").resize((64, 64)).convert("RGB")
IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"{}</rdf:RDF></x:xmpmeta>'
)
ATTRIBUTE = XMP.format(f' Iptc4xmpExt:DigitalSourceType="{IPTC}{{}}"/>')
ELEMENT = XMP.format(f"><Iptc4xmpExt:DigitalSourceType>{IPTC}{{}}</Iptc4xmpExt:DigitalSourceType></rdf:Description>")
AIGC = '{"Label":"%s","ContentProducer":"001191","ProduceID":"7f"}'
A1111 = "a face\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1"


def png(texts, **options):
    info = PngImagePlugin.PngInfo()
    for keyword, text in texts.items():
        info.add_text(keyword, text, zip=options.get("packed", False))
    if "xmp" in options:
        info.add_itxt("XML:com.adobe.xmp", options["xmp"], zip=options.get("packed", False))
    file = io.BytesIO()
    PICTURE.save(file, "PNG", pnginfo=info)
    return file.getvalue()


def saved(form="JPEG", *, software="", comment=b"", **options):
    exif = Image.Exif()
    if software:
        exif[ExifTags.Base.Software] = software
    if comment:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    file = io.BytesIO()
    PICTURE.save(file, form, exif=exif, **options)
    return file.getvalue()


def manifest(jpeg, value):
    """A JPEG with a C2PA manifest in APP11 (C2PA 2.1, section 11.3): boxes whose assertion is CBOR."""
    name, value = b"digitalSourceType", (IPTC + value).encode()
    cbor = b"\xa1" + bytes([0x60 + len(name)]) + name + bytes([0x78, len(value)]) + value
    box = (len(cbor) + 8).to_bytes(4, "big") + b"cbor" + cbor
    jumb = (len(box) + 8).to_bytes(4, "big") + b"jumb" + box
    segment = b"JP\0\1\0\0\0\1" + jumb
    return jpeg[:2] + b"\xff\xeb" + (len(segment) + 2).to_bytes(2, "big") + segment + jpeg[2:]


@pytest.mark.parametrize(
    ("data", "kind", "text"),
    [
        (png({"parameters": A1111}), ClaimKind.PNG_TEXT, "parameters: a face Negative prompt: blurry"),
        (png({"prompt": '{"3": {}}'}, packed=True), ClaimKind.PNG_TEXT, 'prompt: {"3": {}}'),
        (png({"workflow": '{"nodes": []}'}), ClaimKind.PNG_TEXT, 'workflow: {"nodes": []}'),
        (png({"Software": "NovelAI"}), ClaimKind.SOFTWARE, "NovelAI"),
        (png({}, xmp=ELEMENT.format("trainedAlgorithmicMedia"), packed=True), ClaimKind.SOURCE_TYPE, "trained"),
        (png({"AIGC": AIGC % 1}), ClaimKind.AIGC, "Label 1"),
        (saved(xmp=ATTRIBUTE.format("trainedAlgorithmicMedia").encode()), ClaimKind.SOURCE_TYPE, "trainedAlgorithmic"),
        (
            saved(xmp=ELEMENT.format("compositeWithTrainedAlgorithmicMedia").encode()),
            ClaimKind.SOURCE_TYPE,
            "compositeWithTrained",
        ),
        (saved("WEBP", xmp=ATTRIBUTE.format("trainedAlgorithmicMedia").encode()), ClaimKind.SOURCE_TYPE, "trained"),
        (
            saved(xmp=XMP.format(f' TC260:AIGC="{(AIGC % 1).replace(chr(34), "&quot;")}"/>').encode()),
            ClaimKind.AIGC,
            "Label 1",
        ),
        (saved(comment=b"UNICODE\0" + ('{"AIGC":%s}' % (AIGC % 1)).encode("utf-16-be")), ClaimKind.AIGC, "Label 1"),
        (saved(comment=b"UNICODE\0" + A1111.encode("utf-16-le")), ClaimKind.SETTINGS, "a face Negative prompt"),
        (saved(software="Adobe Firefly 3"), ClaimKind.SOFTWARE, "Adobe Firefly 3"),
        (saved("PNG", software="DALL·E 3"), ClaimKind.SOFTWARE, "DALL"),
        (manifest(saved(), "trainedAlgorithmicMedia"), ClaimKind.C2PA, "trainedAlgorithmicMedia"),
    ],
)
def test_a_claim_is_found(data, kind, text, tmp_path):
    claim = ai_claim(data)
    assert claim.kind is kind
    assert claim.text.startswith(text)
    assert len(claim.text) <= 80
    (tmp_path / "picture").write_bytes(data)
    assert ai_claim(tmp_path / "picture") == claim


@pytest.mark.parametrize(
    "data",
    [
        saved(),
        saved(software="Adobe Photoshop 26.1", comment=b"ASCII\0\0\0a prompt for the workflow"),
        saved(xmp=ATTRIBUTE.format("digitalCapture").encode()),
        saved(xmp=ATTRIBUTE.format("algorithmicMedia").encode()),
        manifest(saved(), "digitalCapture"),
        png({"parameters": " ", "Comment": "Steps: 20", "Title": "AIGC"}),
        png({"AIGC": AIGC % 0}),
        png({"AIGC": AIGC % 10}),
    ],
)
def test_other_metadata_claim_nothing(data):
    assert ai_claim(data) is None


def test_damaged_and_hostile_texts_end_well():
    bomb = png({"prompt": "x" * 30_000_000}, packed=True)
    assert ai_claim(bomb).text.startswith("prompt: xxx")
    whole = png({"prompt": "abc"}, packed=True)
    at = whole.index(b"zTXt") + 4 + len("prompt") + 2
    assert ai_claim(whole[:at] + b"\xff\xff" + whole[at + 2 :]) is None
    for data in (b"text", b""):
        with pytest.raises(PictureError):
            ai_claim(data)


def test_files_made_to_cost_minutes_are_read_at_once():
    """Words by the million, texts that unpack to gigabytes, and EXIF of the wrong type."""
    packed = b"k\0\0" + zlib.compress(bytes(1 << 20))
    chunk = struct.pack(">I", len(packed)) + b"zTXt" + packed + bytes(4)
    began = time.process_time()
    assert ai_claim(saved() + b"AIGC" * 1_000_000 + b"digitalsourcetype" * 1_000_000) is None
    assert ai_claim(png({})[:33] + chunk * 20_000 + png({})[33:]) is None
    assert ai_claim(saved(comment=5)) is None
    assert time.process_time() - began < 3
