"""TensorBoard's pages in headless Chromium: what is seen there, and where one clicks.

The pages are nested shadow roots, which neither a CSS selector nor XPath looks into; so
elements are found by a script, and clicked as a person would.
"""

from __future__ import annotations

import pathlib
import shutil
import time
import urllib.parse
from collections.abc import Callable
from typing import Any, Self, TypeVar

from selenium import webdriver
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    StaleElementReferenceException,
)
from selenium.webdriver.remote.webelement import WebElement

PANE = "tf-hparams-sessions-pane"

Row = dict[str, str]
_T = TypeVar("_T")
_PATIENCE_S = 30.0
_SETTLED_S = 0.5

_DEEP = """
const deep = (root, selector) => [...root.querySelectorAll('*')].flatMap(element => [
    ...(element.matches(selector) ? [element] : []),
    ...(element.shadowRoot ? deep(element.shadowRoot, selector) : []),
]);
const shown = element => element.getClientRects().length > 0;
const find = selector => deep(document, selector).filter(shown);
"""
_FIND = _DEEP + "return find(arguments[0]);"
_SCROLL = "arguments[0].scrollIntoView({block: 'center'});"
# The grid keeps spare rows hidden, and what is in a cell behind a slot.
_GRID = (
    _DEEP
    + """
const [grid] = find('vaadin-grid');
const content = cell => cell.querySelector('slot').assignedNodes();
const rows = part => !grid ? [] : [...grid.shadowRoot.querySelectorAll(part + ' tr')]
    .filter(shown).map(row => [...row.querySelectorAll('th, td')]
        .filter(cell => !cell.getAttribute('part').includes('details')));
const text = cell => content(cell).map(n => n.innerText).join(' ').replace(/\\s+/g, ' ').trim();
"""
)
_TABLE = _GRID + "return [rows('thead'), rows('tbody')].map(part => part.map(r => r.map(text)));"
_BOX = (
    _GRID
    + """
const row = rows('tbody').find(row => text(row[0]) === arguments[0]);
return content(row[1])[0].querySelector('paper-checkbox');
"""
)
_AXES = (
    _DEEP
    + """
const [plot] = find('tf-hparams-parallel-coords-plot');
if (!plot) return [[], 0];
const titles = plot.shadowRoot.querySelectorAll('.axis > text');
return [[...titles].map(title => title.textContent),
        plot.shadowRoot.querySelectorAll('.foreground path').length];
"""
)
_CURVES = (
    _DEEP
    + """
const points = line => line.getAttribute('d').split(/[ML]/).length - 1;
return find('tf-scalar-card').map(
    card => [card.tag, deep(card.shadowRoot, 'path.line').map(points)]);
"""
)


class Board:
    """One TensorBoard at ``url``, the address of its HParams page, in a window of its own."""

    def __init__(self, url: str, width: int = 1600, height: int = 900) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = _program("chromium")
        # Root has no sandbox there, and containers have little shared memory.
        for name in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "hide-scrollbars"):
            options.add_argument(f"--{name}")
        service = webdriver.ChromeService(_program("chromedriver"))
        self._driver = webdriver.Chrome(options=options, service=service)
        self._url = url
        self.resize(width, height)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._driver.quit()

    def resize(self, width: int, height: int) -> None:
        """Makes the page ``width`` by ``height`` CSS pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def open_table(self, count: int) -> list[Row]:
        """Opens HParams; its rows once ``count`` of them are there."""
        self._visit(self._url)
        return _until(self.table, lambda rows: len(rows) >= count, f"{count} rows")

    def table(self) -> list[Row]:
        """The cells on the screen, row by row, by the title of their column."""
        head, body = self._driver.execute_script(_TABLE)
        return [dict(zip(head[0], cells, strict=True)) for cells in body] if head else []

    def sort(self, column: str, direction: str) -> list[Row]:
        """Sorts by a column of numbers, "Ascending" or "Descending"; the rows in that order."""

        def sorted_now(rows: list[Row]) -> bool:
            values = [float(row[column]) for row in rows if row[column]]
            return values == sorted(values, reverse=direction == "Descending")

        self._choose("Sort by", column)
        self._choose("Direction", direction)
        return _until(self.table, sorted_now, f"rows by {column}, {direction}")

    def toggle(self, *columns: str) -> None:
        """Shows or hides columns of the table, which are axes of the plot."""
        for column in columns:
            self._click(".hparam-checkbox, .metric-checkbox", column)

    def open_parallel_coordinates(self) -> tuple[list[str], int]:
        """Changes to that view; the titles of its axes, and how many lines cross them."""
        self._click("paper-tab", "PARALLEL COORDINATES VIEW")
        _until(self._axes, lambda found: found[0], "axes")
        return _settled(self._axes)

    def colour_by(self, column: str) -> None:
        """Gives the lines of the plot their colour by a column."""
        self._choose("Color by", column)

    def unfold(self, trial: str) -> dict[str, list[int]]:
        """Shows the curves of a row: by chart, the number of points of each line."""
        self._press(self._driver.execute_script(_BOX, trial))
        _until(self._curves, lambda found: found and all(found.values()), "curves")
        return _settled(self._curves)

    def open_time_series(self, tags: str, runs: str) -> list[str]:
        """Opens the curves of all trials, without smoothing; the titles of the charts.

        ``tags`` and ``runs`` are regular expressions.
        """
        query = urllib.parse.urlencode({"tagFilter": tags, "runFilter": runs, "smoothing": 0})
        self._visit(self._url.replace("#hparams", f"?{query}#timeseries"))
        _until(lambda: self._find("scalar-card line-chart canvas"), bool, "charts")
        return _settled(lambda: [_text(title) for title in self._find("scalar-card .tag")])

    def leave_room_for_curves(self) -> None:
        """Takes the tables below the time series away, and the settings beside them."""
        self._click("mat-checkbox label", "Enable step selection and data table")
        self._click("button.settings-button", "Settings")

    def save(self, path: pathlib.Path, part: str = "body") -> None:
        """A picture of the element that ``part`` selects."""
        time.sleep(_SETTLED_S)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._find(part)[0].screenshot(str(path))

    def _visit(self, url: str) -> None:
        # From the same page, an address with another fragment would change nothing.
        self._driver.get("about:blank")
        self._driver.get(url)

    def _axes(self) -> tuple[list[str], int]:
        titles, lines = self._driver.execute_script(_AXES)
        return titles, lines

    def _curves(self) -> dict[str, list[int]]:
        return dict(self._driver.execute_script(_CURVES))

    def _choose(self, menu: str, item: str) -> None:
        def listed() -> list[WebElement]:
            return [found for found in self._find("paper-item") if _text(found)]

        (opener,) = [
            found
            for found in self._find("paper-dropdown-menu")
            if found.get_attribute("label") == menu
        ]
        self._press(opener)
        self._click("paper-item", item)
        _until(listed, lambda items: not items, f"the end of the menu {menu}")

    def _click(self, selector: str, text: str) -> None:
        """Clicks the element with that text, once nothing is in its way."""

        def clicked() -> bool:
            try:
                for found in self._find(selector):
                    if _text(found).casefold() == text.casefold():
                        self._press(found)
                        return True
            except (
                ElementClickInterceptedException,
                ElementNotInteractableException,
                StaleElementReferenceException,
            ):
                return False
            return False

        _until(clicked, bool, f"{text!r} to click on")

    def _press(self, element: WebElement) -> None:
        # Selenium itself does not scroll the sections of the filters.
        self._driver.execute_script(_SCROLL, element)
        element.click()

    def _find(self, selector: str) -> list[WebElement]:
        """The elements on the page that ``selector`` matches, within shadow roots too."""
        found: list[WebElement] = self._driver.execute_script(_FIND, selector)
        return found


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise SystemExit(f"{name} is not here: `make test-browser` installs it")
    return path


def _text(element: WebElement) -> str:
    # What is scrolled out of sight has no text to Selenium itself.
    return " ".join(str(element.get_property("innerText")).split())


def _until(look: Callable[[], _T], done: Callable[[_T], Any], what: str) -> _T:
    """What ``look`` gives once it is ``done``."""
    deadline = time.monotonic() + _PATIENCE_S
    while not done(found := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not in {_PATIENCE_S:g} s: {what}; there is {found!r}")
        time.sleep(0.1)
    return found


def _settled(look: Callable[[], _T]) -> _T:
    """What ``look`` gives once it gives the same for a while."""
    before = look()
    while True:
        time.sleep(_SETTLED_S)
        if (now := look()) == before:
            return now
        before = now
