"""Results in print of the named models, on test images of the data sets."""

from dataclasses import dataclass

CHECKPOINT = "the checkpoint's name"


@dataclass(frozen=True)
class Result:
    """What is stated of a model: ``data`` is the title of the data set, ``where`` says who does."""

    data: str
    where: str
    srcc: float
    plcc: float
    accuracy: float | None = None

    def __str__(self) -> str:
        accuracy = "" if self.accuracy is None else f", accuracy {self.accuracy:g}"
        return f"{self.data}: SRCC {self.srcc:g}, PLCC {self.plcc:g}{accuracy} ({self.where})"


PUBLISHED = {
    "eat_base": (
        Result("AVA", "EAT, Table 1", srcc=0.759, plcc=0.770),
        Result("TAD66K", "EAT, Table 2", srcc=0.517, plcc=0.546),
    ),
    "eat_base_released": (
        Result("AVA", CHECKPOINT, srcc=0.7596, plcc=0.7710, accuracy=0.8259),
        Result("TAD66K", CHECKPOINT, srcc=0.5171, plcc=0.5460, accuracy=0.6882),
    ),
    "swin_base": (
        Result("AVA", "EAT, Table 1", srcc=0.736, plcc=0.737),
        Result("TAD66K", "EAT, Table 2", srcc=0.419, plcc=0.454),
    ),
    "dat_base": (
        Result("AVA", "EAT, Table 1", srcc=0.738, plcc=0.739),
        Result("TAD66K", "EAT, Table 2", srcc=0.499, plcc=0.527),
    ),
    "psvit_b": (Result("AVA", "EAT, Table 8", srcc=0.701, plcc=0.645),),
    "psvit_b_eam": (Result("AVA", "EAT, Table 8", srcc=0.723, plcc=0.707),),
    "tanet_ava": (Result("AVA", CHECKPOINT, srcc=0.758, plcc=0.765),),
    "tanet_tad66k": (Result("TAD66K", CHECKPOINT, srcc=0.513, plcc=0.531),),
    "det_icaa17k": (Result("ICAA17K", CHECKPOINT, srcc=0.8811, plcc=0.8981, accuracy=0.9622),),
    "det_spaq": (Result("SPAQ", CHECKPOINT, srcc=0.7686, plcc=0.7909, accuracy=0.8506),),
}
