"""Times in whatever form a source writes them, as timestamps in UTC."""

from contextlib import suppress
from datetime import UTC, datetime

import polars as pl
import pyarrow as pa

from include.domain.errors import UserMistake

TIMESTAMP = pl.Datetime("us", "UTC")
#: Forms of a time with and without a zone, tried in this order; `T` and a blank between date and time are the same.
FORMATS_WITH_ZONE = ("%Y-%m-%dT%H:%M:%S%.f%:z", "%Y-%m-%dT%H:%M:%S%.f%z", "%Y-%m-%dT%H:%M%:z")
FORMATS_WITHOUT_ZONE = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d", "%Y%m%dT%H%M%S", "%Y/%m/%dT%H:%M:%S")
#: Seconds, milliseconds, microseconds and nanoseconds since 1970: below the first number, times the second, in microseconds.
#: They are told apart by size: each unit's count of the year 2200 is far below the next one's of 1971.
EPOCH_UNITS = ((1e11, 1e6), (1e14, 1e3), (1e17, 1.0), (1e20, 1e-3))
#: A time outside is an error of the source (epoch 0, a year 9999 for "never").
EARLIEST, LATEST = datetime(1970, 1, 2, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


def to_timestamps(raw: pl.Series, zone: str, time_format: str | None) -> pl.Series:
    """Return the times as Datetime[us, UTC] `[n]`, null where the value is no time between 1970 and 2200.

    A time without a zone is one of `zone`'s: the earlier one where clocks were set back, none where they skipped it.
    Raises UserMistake for a type that cannot hold times.
    """
    if raw.dtype == pl.String:
        times = _from_text(raw, zone, time_format)
    elif raw.dtype == pl.Date or isinstance(raw.dtype, pl.Datetime):
        times = _in_utc(raw, zone)
    elif raw.dtype.is_numeric() and time_format is None:
        times = _from_epoch(raw.cast(pl.Float64))
    elif raw.dtype.is_integer():
        times = _from_text(raw.cast(pl.String), zone, time_format)
    else:
        raise UserMistake(f"column {raw.name} holds {raw.dtype}, which is no time")
    return pl.select(pl.when(times.is_between(EARLIEST, LATEST)).then(times).alias(raw.name))[raw.name]


def _from_text(raw: pl.Series, zone: str, time_format: str | None) -> pl.Series:
    if time_format is not None:
        return _in_utc(_parse(raw, time_format), zone)
    if (iso_times := _from_iso(raw, zone)) is not None:
        return iso_times
    text = (
        raw.str.strip_chars().str.replace(r"^(\d{4}[-/]\d\d[-/]\d\d|\d{8}) +", "${1}T").str.replace(r"[zZ]$", "+00:00")
    )
    times = pl.Series(raw.name, [None], TIMESTAMP).new_from_index(0, len(raw)) if len(raw) else raw.cast(TIMESTAMP)
    formats = (*FORMATS_WITHOUT_ZONE[:1], *FORMATS_WITH_ZONE, *FORMATS_WITHOUT_ZONE[1:])
    first = text.drop_nulls().head(1)
    for form in sorted(formats, key=lambda form: _parse(first, form).null_count()):  # most sources keep to one form
        unparsed = times.is_null() & text.is_not_null()
        if not unparsed.any():
            return times
        times = times.zip_with(~unparsed, _in_utc(_parse(text, form), zone))
    epoch = text.str.extract(r"^(\d{9,19}(?:\.\d+)?)$").cast(pl.Float64, strict=False)
    return times.zip_with(times.is_not_null(), _from_epoch(epoch))


def _from_iso(raw: pl.Series, zone: str) -> pl.Series | None:
    """Return the times where each is an ISO 8601 one to the minute or finer, in a tenth of the time that the formats take."""
    if not (raw.str.slice(13, 1) == ":").all():
        return None
    text = raw.to_arrow(compat_level=pl.CompatLevel.oldest())
    for timestamp_type in (pa.timestamp("us", "UTC"), pa.timestamp("us")):
        with suppress(pa.ArrowInvalid):
            return _in_utc(pl.Series(raw.name, text.cast(timestamp_type)), zone)
    return None


def _parse(text: pl.Series, form: str) -> pl.Series:
    if "%H" not in form:
        return text.str.to_date(form, strict=False).cast(pl.Datetime("us"))
    if "%M" not in form and not form.endswith(("%T", "%R")):  # polars reads no hour without its minute
        text, form = text + " 00", form + " %M"
    return text.str.to_datetime(form, strict=False, time_unit="us")


def _in_utc(times: pl.Series, zone: str) -> pl.Series:
    at = times.cast(pl.Datetime("us")) if times.dtype == pl.Date else times.dt.cast_time_unit("us")
    if getattr(at.dtype, "time_zone", None) is None:
        at = at.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    return at.dt.convert_time_zone("UTC")


def _from_epoch(numbers: pl.Series) -> pl.Series:
    micros = pl.lit(None, pl.Float64)
    for limit, factor in reversed(EPOCH_UNITS):
        micros = pl.when(numbers.abs() < limit).then(numbers * factor).otherwise(micros)
    return pl.select(micros.cast(pl.Int64, strict=False).alias("t"))["t"].cast(TIMESTAMP)
