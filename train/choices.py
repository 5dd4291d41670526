"""The values that options of the commands take. Imports nothing heavy, so that `--help` is fast."""

from enum import Enum


class Preset(str, Enum):
    """The recipes of training, by the name that `--preset` takes."""

    DEFAULT = "default"
    TAUGHT = "taught"
    SCRATCH = "scratch"
    ARTICLE = "article"
    ARTICLE_VIT = "article-vit"
    QUICK = "quick"
    DEMO = "demo"


class InputPreset(str, Enum):
    """How a face becomes the model's pixels, by the name that `--input` takes."""

    ARTICLE = "article"
    RESIZE = "resize"
    NATIVE = "native"
    NATIVE5 = "native5"
    FRAME = "frame"


class FrontEnd(str, Enum):
    """What a network sees of its normalized pixels: all, or only what differs from their neighbourhood."""

    NONE = "none"
    RESIDUAL = "residual"


class Folders(str, Enum):
    """What a folder below real/ or fake/ is: a source or generator, or one person or video; `auto` tells by size."""

    AUTO = "auto"
    SOURCE = "source"
    IDENTITY = "identity"


class Keep(str, Enum):
    """Which epoch's network is kept: that of the highest AUC on validation, or the last."""

    BEST = "best"
    LAST = "last"


class Balance(str, Enum):
    """Whether an epoch draws each source and generator of a class equally often; `auto`: where a class has several."""

    AUTO = "auto"
    SOURCE = "source"
    NONE = "none"


class StepPrecision(str, Enum):
    """The precision of a training step; `auto` is bf16 where the device is fast at it."""

    AUTO = "auto"
    BF16 = "bf16"
    FP16 = "fp16"
    NO = "no"


class TrainingDevice(str, Enum):
    """Where training runs; `auto` is a GPU where there is one."""

    AUTO = "auto"
    CPU = "cpu"


class Robustness(str, Enum):
    """The grid of damaged pictures that a detector is evaluated on: none, one cause at a time, or causes combined."""

    OFF = "off"
    ONE = "one"
    CROSSED = "crossed"
