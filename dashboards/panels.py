"""How a dashboard is put together: panels as values, laid out row by row, built with Grafana's own SDK."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import bargauge, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

__all__ = ["BARS", "LINES", "NUMBERS", "TABLE", "Panel", "Query", "dashboard_json"]

LINES, BARS, NUMBERS, TABLE = "lines", "bars", "numbers", "table"

SCHEMA_VERSION = 42  # loads in every Grafana from 10 on
COLUMNS = 24
HEIGHT = 8
PAGE = "http://127.0.0.1:4318"
SOURCE = common.DataSourceRef(type_val="prometheus", uid="${datasource}")


@dataclass(frozen=True, slots=True)
class Query:
    """One query in PromQL, and what its series are called."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: what it shows, how, in which unit; `look` turns numbers from `alarm` on red."""

    title: str
    meaning: str
    look: str
    unit: str
    queries: tuple[Query, ...]
    width: int = 8
    alarm: float | None = None
    link: tuple[str, str] | None = None  # title and address, opened from a value
    stacked: bool = False


def dashboard_json(uid: str, title: str, meaning: str, rows: Sequence[Sequence[Panel]]) -> str:
    """Return a dashboard as JSON that Grafana imports."""
    built = builders.Dashboard(title).uid(uid).description(meaning).tags(["otel-sessions"])
    built = built.time("now-3h", "now").refresh("30s").tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
    for variable in _variables():
        built = built.with_variable(variable)
    for link in _links():
        built = built.link(link)
    number = top = 0
    for row in rows:
        left = 0
        for panel in row:
            number += 1
            place = dashboard.GridPos(h=HEIGHT, w=panel.width, x=left, y=top)
            built = built.with_panel(_built(panel).id(number).grid_pos(place))
            left += panel.width
        if left > COLUMNS:
            raise ValueError(f"a row of {title} is {left} columns wide; {COLUMNS} is the most")
        top += HEIGHT
    model = built.build()
    model.schema_version = SCHEMA_VERSION
    return JSONEncoder(sort_keys=True, indent=2).encode(model) + "\n"


def _variables() -> list[Any]:
    source = builders.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
    instance = (
        builders.QueryVariable("instance")
        .label("Backend")
        .datasource(SOURCE)
        .query({"query": "label_values(otel_sessions_build_info, instance)", "refId": "instances"})
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(dashboard.VariableOption(selected=True, text="All", value="$__all"))
    )
    page = (
        builders.TextBoxVariable("page")
        .label("Page")
        .description("Where links lead: the address of the otel-sessions page, as your browser reaches it")
        .default_value(PAGE)
        .current(dashboard.VariableOption(selected=True, text=PAGE, value=PAGE))
    )
    return [source, instance, page]


def _links() -> list[Any]:
    """Lead to the other dashboard, with the same time and variables, and to our page."""
    others = builders.DashboardLink("Sessions and delivery").type(dashboard.DashboardLinkType.DASHBOARDS)
    others = others.tags(["otel-sessions"]).keep_time(True).include_vars(True)
    page = builders.DashboardLink("Page").type(dashboard.DashboardLinkType.LINK).url("${page}/sessions")
    return [others, page.target_blank(True)]


def _built(panel: Panel) -> Any:
    """Return the builder of a panel."""
    made = _LOOKS[panel.look](panel)
    made = made.title(panel.title).description(panel.meaning).unit(panel.unit).datasource(SOURCE)
    if panel.alarm is not None:
        steps = [dashboard.Threshold(color="green"), dashboard.Threshold(value=panel.alarm, color="red")]
        thresholds = builders.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps)
        made = made.thresholds(thresholds)
    if panel.link is not None:
        title, address = panel.link
        made = made.data_links([builders.DashboardLink(title).url(address).target_blank(True)])
    for ref, query in zip("ABCDEF", panel.queries, strict=False):
        made = made.with_target(_target(ref, query, panel.look))
    return made


def _target(ref: str, query: Query, look: str) -> Any:
    target = prometheus.Dataquery().ref_id(ref).expr(query.expr).datasource(SOURCE)
    if query.legend:
        target = target.legend_format(query.legend)
    if look == TABLE:
        return target.instant().format(PromQueryFormat.TABLE)
    return target.range() if look == LINES else target.instant()


def _lines(panel: Panel) -> Any:
    made = timeseries.Panel().fill_opacity(10).show_points(common.VisibilityMode.NEVER)
    made = made.tooltip(common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI))
    if panel.stacked:
        made = made.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL))
    return made


def _numbers(panel: Panel) -> Any:
    coloured = common.BigValueColorMode.NONE if panel.alarm is None else common.BigValueColorMode.VALUE
    made = stat.Panel().color_mode(coloured).graph_mode(common.BigValueGraphMode.NONE)
    return made.reduce_options(_newest())


def _bars(_panel: Panel) -> Any:
    made = bargauge.Panel().orientation(common.VizOrientation.HORIZONTAL).min(0)
    return made.reduce_options(_newest())


def _newest() -> Any:
    return common_builders.ReduceDataOptions().calcs(["lastNotNull"])


def _table(_panel: Panel) -> Any:
    return table.Panel().with_transformation(
        dashboard.DataTransformerConfig(
            id_val="organize",
            options={"excludeByName": {"Time": True}, "renameByName": {"Value": "sessions"}},
        )
    )


_LOOKS = {LINES: _lines, BARS: _bars, NUMBERS: _numbers, TABLE: _table}
