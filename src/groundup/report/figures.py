"""Numbers as people read them: counts, durations, sizes, shares, metrics and moments.

The page and `groundup runs` use these; a missing number is an en dash, never a zero.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime

from groundup.report.reading import known, text_of

MISSING = "–"


def missing(value: float | None) -> bool:
    """Whether there is no number to show."""
    return value is None or math.isnan(value)


def count(value: float | None) -> str:
    """Below a hundred thousand in full (12,345), beyond with three digits and a unit (12.3 M)."""
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "infinite"
    if abs(value) < 99_999.5:
        return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"
    unit, scale = next(
        ((unit, scale) for unit, scale in (("k", 1e3), ("M", 1e6), ("B", 1e9)) if abs(value) < 999.5 * scale),
        ("T", 1e12),
    )
    scaled = value / scale
    decimals = 2 if abs(scaled) < 9.995 else 1 if abs(scaled) < 99.95 else 0
    return f"{scaled:,.{decimals}f} {unit}"


def duration(seconds: float | None) -> str:
    """The two largest units: 8.2 s, 5 min 41 s, 1 h 2 min."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 0:
        return "−" + duration(-seconds)
    if seconds == 0:
        return "0 s"
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    if seconds < 3599.5:
        (whole, rest), large, small = divmod(round(seconds), 60), "min", "s"
    elif seconds < 86_370:
        (whole, rest), large, small = divmod(round(seconds / 60), 60), "h", "min"
    else:
        (whole, rest), large, small = divmod(round(seconds / 3600), 24), "d", "h"
    return f"{whole:,} {large} {rest} {small}" if rest else f"{whole:,} {large}"


def size(value: float | None) -> str:
    """Bytes in binary units: 512 B, 1.5 KiB, 3.0 GiB."""
    if value is None or not math.isfinite(value):
        return MISSING
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1023.95 or unit == "TiB":
            break
        value /= 1024
    return f"{value:,.0f} {unit}" if unit == "B" or abs(value) >= 99.95 else f"{value:.1f} {unit}"


def metric(value: float | None) -> str:
    """A measured value: three decimals up to 100, four below 0.1, one beyond; extremes in three digits."""
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "infinite" if value > 0 else "−infinite"
    if value == 0 or 0.0995 <= abs(value) < 99.9995:
        text = f"{value:.3f}"
    elif 0.001 <= abs(value) < 0.1:
        text = f"{value:.4f}"
    elif 99 < abs(value) < 1e6:
        text = f"{value:,.1f}"
    else:
        text = f"{value:.3g}"
    return text.replace("-", "−")


def short(value: float | None) -> str:
    """An axis label: as few digits as tell it apart."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    if abs(value) >= 99_999.5:
        scaled, _, unit = count(value).partition(" ")
        return (scaled.rstrip("0").rstrip(".") if "." in scaled else scaled) + " " + unit
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace("-", "−")
    return f"{value:.4g}".replace("e-0", "e-").replace("-", "−")


def percent(share: float | None, *, signed: bool = False) -> str:
    """A share as per cent: 0.123 → 12.3 %, 0.2 → 20 %, signed with + or −."""
    if share is None or not math.isfinite(share):
        return MISSING
    value = abs(share) * 100
    sign = "" if value < 0.05 else "−" if share < 0 else "+" if signed else ""
    whole = value >= 99.95 or value < 0.05 or abs(value - round(value)) < 1e-9
    return f"{sign}{value:,.0f} %" if whole else f"{sign}{value:.1f} %"


def between(low: float | None, high: float | None) -> str:
    """An interval, or nothing if one of its ends is missing."""
    if low is None or high is None or missing(low) or missing(high):
        return ""
    return f"{metric(low)} to {metric(high)}"


def moment(text: str | None) -> str:
    """An ISO time in UTC to the minute, independent of locale and time zone; other text as it stands."""
    if not text:
        return MISSING
    try:
        found = datetime.fromisoformat(text)
        found = found if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return text[:40]
    return found.strftime("%Y-%m-%d %H:%M") + " UTC"


def words(name: str) -> str:
    """A field name as words: bits_per_byte → bits per byte, held_out → held-out."""
    return name.replace("held_out", "held-out").replace("_", " ")


def capital(text: str) -> str:
    """`text` with its first letter raised and nothing else changed."""
    return text[:1].upper() + text[1:]


def shaped(name: str, value: object) -> str:
    """A value of unknown meaning as its name suggests: bytes as sizes, shares as per cent, counts with commas."""
    found = known(value)
    if found is None:
        return text_of(value)[:400]
    if name.endswith("bytes"):
        return size(found)
    if name.endswith(("share", "ratio")):
        return percent(found)
    return count(found)
