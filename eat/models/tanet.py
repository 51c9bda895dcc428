"""TANet (He et al., IJCAI 2022): colour, theme and mobile branches, ten numbers each, and a fusion.

The theme branch compares the images of a batch with one another, in evaluation too: the scores of
an image depend on the images beside it and on their order.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eat.models.base import AestheticModel, Record
from eat.models.limits import check_ranges

CELLS = 12  # colour cells a side
THEMES, THEME_DIM = 365, 100  # classes of Places365; features of the target net
BRANCH = 10  # numbers of each branch
SIDES = range(224, 256)  # pixels of an input that the 7 x 7 pooling fits
# Expansion, channels, repeats and first stride of MobileNetV2's inverted residual blocks.
MOBILE_BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class RatingHead(nn.Linear):
    """ReLU, dropout, then a linear layer."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C) -> (B, C')."""
        return super().forward(F.dropout(x.relu(), 0.75, self.training))


class ColourBranch(nn.Module):
    """Cosine similarities of the mean colours of an image's cells."""

    def __init__(self) -> None:
        super().__init__()
        self.head = RatingHead(CELLS**4, BRANCH)

    def similarity(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, cells, cells)."""
        cells = F.adaptive_avg_pool2d(x, CELLS).flatten(2).transpose(1, 2)  # (B, cells, 3)
        norms = cells.norm(dim=2, keepdim=True)
        return cells @ cells.mT / (norms @ norms.mT).clamp_min(1e-8)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 10), shares."""
        return self.head(self.similarity(x).flatten(1)).softmax(dim=1)


class ThemeTarget(nn.Module):
    """Hypernetwork and target net: features of each image under the weights of every image.

    Args:
        column_norm: normalise each column of the resulting matrix over the batch (AVA); otherwise
            each row ends in a softmax (TAD66K), which leaves no effect to ``hyper_bias``.
    """

    def __init__(self, *, column_norm: bool) -> None:
        super().__init__()
        self.hyper_weight = nn.Linear(THEMES, THEME_DIM)
        self.hyper_bias = nn.Linear(THEMES, 1)
        self.fc = nn.Linear(THEMES, THEME_DIM)
        self.norm = nn.BatchNorm1d(THEME_DIM)
        self.act = nn.PReLU()
        self.drop = nn.Dropout(0.5)
        self.copies: int | None = None  # that each image is compared with, instead of the batch
        self.column_act = nn.PReLU() if column_norm else None

    def compare(self, themes: Tensor) -> Tensor:
        """(B, 365) logits -> (B, B): features of image i times weights of image j, plus bias i."""
        features = self.drop(self.act(self.norm(self.fc(themes))))
        return features @ self.hyper_weight(themes).T + self.hyper_bias(themes)

    def relate(self, themes: Tensor) -> Tensor:
        """(B, 365) logits -> (B, B), ``compare`` normalised over the batch.

        Raises:
            ValueError: a column of one image is to be normalised.
        """
        matrix = self.compare(themes)
        if self.column_act is None:
            return matrix.softmax(dim=1)
        if len(matrix) < 2:
            raise ValueError(
                "TANet with column_norm scores images by comparing those of a batch: expected at "
                "least 2 in each, got 1"
            )
        return self.column_act(F.batch_norm(matrix, None, None, training=True))

    def forward(self, themes: Tensor) -> Tensor:
        """(B, 365) logits -> (B, 10): a row's columns repeated or averaged to ten."""
        if self.copies is not None:
            # A column of equal numbers is normalised to zeros; a row of them has even shares.
            # By the shape: an exported program would keep the number that len gives.
            even = 1 / self.copies if self.column_act is None else 0.0
            return themes.new_full((themes.shape[0], BRANCH), even)
        return F.adaptive_avg_pool1d(self.relate(themes), BRANCH)


class ThemeBranch(nn.Module):
    """A frozen scene classifier, and what ``ThemeTarget`` makes of its logits.

    While training, the classifier's BatchNorm statistics follow the batches, as in the release.
    """

    def __init__(self, *, column_norm: bool) -> None:
        from torchvision.models import resnet18

        super().__init__()
        self.scenes = resnet18(num_classes=THEMES).requires_grad_(False)
        self.target = ThemeTarget(column_norm=column_norm)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 10)."""
        return self.target(self.scenes(x))


def conv_norm(
    in_dim: int, dim: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """A convolution without bias and its normalisation."""
    conv = nn.Conv2d(in_dim, dim, kernel, stride, kernel // 2, groups=groups, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out")
    return conv, nn.BatchNorm2d(dim)


class InvertedResidual(nn.Module):
    """MobileNetV2's block; unlike torchvision's, it expands by a layer even where it is by 1."""

    def __init__(self, in_dim: int, dim: int, *, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = expansion * in_dim
        self.shortcut = stride == 1 and in_dim == dim
        self.conv = nn.Sequential(
            *conv_norm(in_dim, hidden),
            nn.ReLU6(inplace=True),
            *conv_norm(hidden, hidden, 3, stride, groups=hidden),
            nn.ReLU6(inplace=True),
            *conv_norm(hidden, dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H / stride, W / stride), sides rounded up."""
        return x + self.conv(x) if self.shortcut else self.conv(x)


class MobileBranch(nn.Module):
    """MobileNetV2 of width 1, in the layout of NIMA-PyTorch: ReLU in its stem and last layer."""

    def __init__(self) -> None:
        super().__init__()
        width, last = 32, 1280
        layers: list[nn.Module] = [nn.Sequential(*conv_norm(3, width, 3, 2), nn.ReLU(inplace=True))]
        for expansion, dim, repeats, first in MOBILE_BLOCKS:
            for stride in (first, *[1] * (repeats - 1)):
                layers.append(InvertedResidual(width, dim, expansion=expansion, stride=stride))
                width = dim
        layers.append(nn.Sequential(*conv_norm(width, last), nn.ReLU(inplace=True)))
        self.features = nn.Sequential(*layers)
        self.head = RatingHead(last, BRANCH)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 10)."""
        return self.head(F.avg_pool2d(self.features(x), 7).flatten(1))


class TANet(AestheticModel):
    """Three branches, whose thirty numbers a last layer turns into a rating.

    Args:
        num_outputs: 10 for a distribution over the scores 1..10, by a softmax; 1 for a score in
            [0, 1], by a sigmoid.
        img_size: side in pixels, or (height, width), of the usual input, from 224 to 255.
        column_norm: the theme branch's normalisation, as in ``ThemeTarget``: True for AVA, False
            for TAD66K.

    Raises:
        ValueError: ``num_outputs`` or ``img_size`` is out of range.
    """

    first_conv = "mobile.features.0.0"
    frozen = ("theme.scenes",)

    def __init__(
        self,
        *,
        num_outputs: int = 10,
        img_size: int | tuple[int, int] = 224,
        column_norm: bool = True,
    ) -> None:
        super().__init__()
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.img_size = (height, width)
        check_ranges({"num_outputs": num_outputs})
        check_sides(height, width)
        self.mobile = MobileBranch()
        self.theme = ThemeBranch(column_norm=column_norm)
        self.colour = ColourBranch()
        self.reset_classifier(num_outputs)

    @property
    def mixes_images(self) -> bool:
        return self.theme.target.copies is None

    @property
    def smallest_batch(self) -> int:
        """2 where numbers are normalised over the batch."""
        target = self.theme.target
        alone = target.copies is not None or target.column_act is None
        return 1 if alone and not self.training else 2

    def use_own_points(self) -> None:
        """Refused: without other images there is nothing that the theme branch could compare.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "TANet compares the images of a batch with one another, and so its authors define no "
            "score of one image alone; eat score and eat evaluate --own_rule true compare each "
            "image with copies of itself, which is a rule of ours"
        )

    def use_own_rule(self, batch_size: int) -> None:
        """Compare each image with copies of itself, ``batch_size`` in all; a rule of ours.

        The theme branch then says the same of all images: what it says of one that is like all
        others of its batch. Scores differ by the other two branches.
        """
        self.theme.target.copies = batch_size

    def reset_classifier(self, num_outputs: int, global_pool: str | None = None) -> None:
        self._set_pooling(global_pool)
        self.num_outputs = num_outputs
        self.head = RatingHead(3 * BRANCH, num_outputs)

    def forward(self, x: Tensor, record: Record | None = None) -> Tensor:
        """(B, 3, H, W) normalised pixels -> (B, num_outputs).

        Raises:
            ValueError: the sides are not from 224 to 255 pixels, or one image has none beside it
                where the theme branch normalises columns.
            KeyError: ``record`` names a block; none has interest points or windows.
        """
        check_sides(*x.shape[-2:])
        if record:
            raise KeyError(f"no block {next(iter(record))!r}: TANet has none that attends")
        # (B, 30): the order is that of the fusion's weights.
        branches = [branch(x) for branch in (self.mobile, self.theme, self.colour)]
        x = self.head(torch.cat(branches, dim=1))
        return x.softmax(dim=1) if self.ends_in_softmax else x.sigmoid()


def check_sides(height: int, width: int) -> None:
    """Refuse sizes that the mobile branch's pooling does not fit.

    Raises:
        ValueError: naming the size.
    """
    if height not in SIDES or width not in SIDES:
        raise ValueError(
            f"TANet takes images of {SIDES[0]} to {SIDES[-1]} pixels a side, got {height} x {width}"
        )
