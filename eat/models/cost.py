"""The cost of enhanced attention in multiply-adds for one image: as printed, and as computed."""

from eat.models.kernels import products_for


def eq12(
    height: int, width: int, channels: int, rows: int, cols: int, *, k_in: int, k_of: int
) -> int:
    """Multiply-adds of aesthetic self-attention as Eq. 12 of the paper prints them.

    The paper counts H W C^2 + 3 N C^2 for the projections and 2 N^2 C for the attention, as if
    queries were as many as points N; :func:`enhanced_attention_macs` counts what is computed.

    A map of ``height`` x ``width`` tokens has ``rows`` x ``cols`` points.
    """
    points = rows * cols
    attention = height * width * channels**2 + 2 * points**2 * channels + 3 * points * channels**2
    offsets = (k_of**2 + 3) * points * channels
    return attention + offsets + k_in**2 * points * channels


def enhanced_attention_macs(
    height: int, width: int, channels: int, rows: int, cols: int, *, k_in: int, k_of: int
) -> int:
    """Multiply-adds of the convolutions and matrix products of letter E's attention.

    Every one of the H W tokens asks every point: projections 2 H W C^2 + 2 N C^2, attention
    2 H W N C, offsets (k_of^2 + 2) N C, interest 2 k_in^2 N C, or with H W for N where it is made a
    matrix product. Sampling is not counted. Arguments as for :func:`eq12`.
    """
    tokens, points = height * width, rows * cols
    projections = 2 * (tokens + points) * channels**2
    attention = 2 * tokens * points * channels
    offsets = (k_of**2 + 2) * points * channels
    product = products_for(channels, 2, (k_in, k_in))
    interest = 2 * k_in**2 * (tokens if product else points) * channels
    return projections + attention + offsets + interest


def kernel_for(side: int, points: int) -> int:
    """The k_in that turns ``side`` tokens into ``points`` a side (Eq. 4, stride 1, no padding).

    Raises:
        ValueError: there would be more points than tokens, or none.
    """
    if not 1 <= points <= side:
        raise ValueError(f"points must lie in [1, {side}], the tokens a side; got {points}")
    return side - points + 1
