from PIL import Image

from train.data.scan import perceptual_hash
from train.data.splits import NEAR_BITS


def test_the_perceptual_hash_survives_compression_and_scaling(tmp_path, draw):
    picture = draw(1, (256, 256))
    picture.save(tmp_path / "low.jpg", quality=40)
    with Image.open(tmp_path / "low.jpg") as low:
        distance = int(perceptual_hash(picture), 16) ^ int(perceptual_hash(low.resize((200, 200))), 16)
    assert bin(distance).count("1") <= NEAR_BITS
    other = int(perceptual_hash(picture), 16) ^ int(perceptual_hash(draw(2, (256, 256))), 16)
    assert bin(other).count("1") > 10
