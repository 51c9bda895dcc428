"""Published facts about the authors' checkpoints, by model and data set."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Released:
    """Facts about one published checkpoint.

    Attributes:
        metrics: what the authors report, on their own test split.
        split: the split that it was trained and tested on.
        test_fingerprint: of that split's test images.
        warning: what another test split means.
    """

    file: str
    metrics: dict[str, float]
    split: str
    test_fingerprint: str
    warning: str


AVA_SPLIT = {
    "split": "the authors' random split of AVA, test.csv with 12,776 images",
    "test_fingerprint": "b5bb7e8f8b25ebbbed944ab1667655ff3bc1e9f264bed263c00fd17023953bc9",
    "warning": "its training images hold about 90% of the official test split of AVA, on which "
    "one user of EAT reports an SRCC of 0.8755",
}
TAD66K_SPLIT = {
    "split": "TAD66K's merge/test.csv with 14,079 images",
    "test_fingerprint": "70b53bf9c51e2730d4dcd6d820baaea22ab4748eb251f6254d02f6537dc2db79",
    "warning": "478 of those test images stand in the training files of the split by theme",
}

RELEASED = {
    ("eat_base_released", "ava"): Released(
        file="AVA_AOT_vacc_0.8259_srcc_0.7596_vlcc_0.7710.pth",
        metrics={"srcc": 0.7596, "plcc": 0.7710, "accuracy": 0.8259},
        **AVA_SPLIT,
    ),
    ("eat_base_released", "tad66k"): Released(
        file="TAD66K_AOT_vacc_0.6882_srcc_0.5171_vlcc_0.5460.pth",
        metrics={"srcc": 0.5171, "plcc": 0.5460, "accuracy": 0.6882},
        **TAD66K_SPLIT,
    ),
    ("tanet_ava", "ava"): Released(
        file="SRCC_758_LCC_765.pth",
        metrics={"srcc": 0.758, "plcc": 0.765, "ratio": 0.940},
        **AVA_SPLIT,
    ),
    ("tanet_tad66k", "tad66k"): Released(
        file="SRCC_513_LCC_531_MSE_016.pth",
        metrics={"srcc": 0.513, "plcc": 0.531, "mse": 0.016},
        **TAD66K_SPLIT,
    ),
    ("det_icaa17k", "icaa17k"): Released(
        file="e_30_ICAA17K_multi_tacc0.9622_srcc0.8811_tlcc0.8981.pth",
        metrics={"color.srcc": 0.8811, "color.plcc": 0.8981, "color.accuracy": 0.9622},
        split="ICAA17K's 1test.csv with 1,617 images",
        test_fingerprint="61283e1b5ab1ff77658b73cc50872fce5977938b36547b0959d45708c57a4d2a",
        warning="749 of those test images are photographs of the training list",
    ),
    ("det_spaq", "spaq"): Released(
        file="e_3_SPAQ_vacc0.8506_srcc0.7686vlcc0.7909.pth",
        metrics={"srcc": 0.7686, "plcc": 0.7909, "accuracy": 0.8506},
        split="spaqTest.csv with 1,125 images",
        test_fingerprint="066abc706d64cc140d245d80c7baf1b695de74b6c9dd3a8f221add80c6039219",
        warning="how its authors resized and stored SPAQ's pixels before is not known",
    ),
}
