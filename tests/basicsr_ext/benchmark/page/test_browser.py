"""The page in a real browser: what it does by mouse and keys, that it asks no network, and who can use it."""

import shutil
import time

import cv2
import numpy as np
import pytest

from basicsr_ext.benchmark.page.build import write
from tests.support import page_records

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (requirements-test.txt)")
axe = pytest.importorskip("axe_core_python.sync_playwright", reason="needs axe-core-python (requirements-test.txt)")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs the program chromium")

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run", "--disable-quic",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    return write(page_records.write_records(folder / "in", sets=2), folder / "out").as_uri()


class Complaints(list):
    """What went wrong on a page: errors, warnings on the console, dialogs, and everything not on the disk."""

    def watch(self, page):
        page.on("console", lambda message: self.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: self.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (self.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("requestfailed", lambda request: self.append(f"not loaded: {request.url}"))
        page.route(lambda url: not url.startswith(("file:", "data:")), self.refuse)
        return page

    def refuse(self, route):
        self.append(f"asked the network: {route.request.url}")
        route.abort()


@pytest.fixture
def opened(browser, address):
    complaints = Complaints()
    context = browser.new_context(viewport={"width": 1300, "height": 900})
    page = complaints.watch(context.new_page())
    page.goto(address)
    yield page
    page.wait_for_load_state("networkidle")
    context.close()
    assert complaints == []


def box(page, selector):
    return page.locator(selector).bounding_box()


def cells(page, header):
    """A column of the table, without the rows of methods that failed."""
    heads = page.locator("#table thead th").all_inner_texts()
    at = next(k for k, text in enumerate(heads) if text.startswith(header))
    rows = page.locator("#table tbody tr:not(:has(.reason))").all()
    return [row.locator("> *").nth(at).inner_text().split("\n")[0].rstrip("*") for row in rows]


def numbers(page, header):
    return [float(cell) for cell in cells(page, header)]


def variables(page):
    """Zoom and corner of every picture on the page, as the browser computes them from CSS."""
    script = """() => [...document.querySelectorAll("#viewer .view img")].map((one) => {
        const view = one.closest(".view").getBoundingClientRect(), box = one.getBoundingClientRect();
        return [box.width / view.width, (view.x - box.x) / box.width, (view.y - box.y) / box.height];
    })"""
    return page.evaluate(script)


def cut(page):
    """Where the divider stands, a fraction of the stage, and where picture B is cut."""
    stage, divider = box(page, "#stage"), box(page, ".divider")
    clip = page.locator(".layer.over").evaluate("(one) => getComputedStyle(one).clipPath")
    return (divider["x"] + divider["width"] / 2 - stage["x"]) / stage["width"], clip


def names(page):
    script = '(all) => all.map((one) => one.querySelector("span").firstChild.data)'
    return page.locator("#list .option").evaluate_all(script)


# ---- the table and the plots


def test_names_with_markup_stay_text(opened):
    assert opened.locator("h1").inner_text() == "Made-up <script>alert(1)</script>"
    assert "<script>boom()</script>" in cells(opened, "Method")
    assert "failed: weights of the wrong kind: <img src=x>" in opened.locator("#table").inner_text()
    assert names(opened)[1] == "<script>alert(2)</script>"
    assert opened.locator("#dataset option").all_inner_texts() == ["set 0 <b>&", "set 1 <b>&"]
    assert opened.locator("script").count() == 2 and opened.locator("img[src=x]").count() == 0


def test_the_table_sorts_both_ways_and_keeps_the_failed_last(opened):
    assert cells(opened, "Method")[0] == "Bicubic", "as in the records at first"
    for header, down in (("LPIPS", False), ("PSNR-Y", True), ("Seconds", False)):
        for order in (down, not down):
            opened.get_by_role("button", name=header).click()
            values = numbers(opened, header)
            assert len(values) == 5 and values == sorted(values, reverse=order)
            wanted = "descending" if order else "ascending"
            assert opened.locator("th[aria-sort]").get_attribute("aria-sort") == wanted
            assert opened.locator("#table tbody tr").last.inner_text().startswith("Broken")
    assert opened.evaluate("document.activeElement.textContent").startswith("Seconds"), "the focus stays"


def test_the_best_two_of_each_metric_are_marked(opened):
    assert opened.locator("#table b").all_inner_texts() == ["31.50", "0.140", "50.0"]
    assert opened.locator("#table u").all_inner_texts() == ["29.50", "0.180", "60.0"]
    assert opened.locator("#table td span[title]").get_attribute("title") == "differs from bicubic by 1.50, p = 0.01"


def test_the_plots_show_every_method_and_join_the_bridge(opened):
    for plot in ("#plane", "#time"):
        assert opened.locator(f"{plot} .point").count() == 5
        assert opened.locator(f"{plot} .curve").get_attribute("d").count("L") == 2, "three numbers of evaluations"
    spots = opened.locator("#plane .dot").evaluate_all(
        "(all) => all.map((one) => [one.cx, one.cy].map((v) => v.baseVal.value))"
    )
    # PSNR-Y 31.5, 29.5, 29.5, 28.5, 27.5 to the right; LPIPS 0.30 to 0.14 upwards
    assert sorted(spots, key=lambda spot: spot[0]) == [spots[k] for k in (4, 3, 1, 2, 0)]
    assert [spot[1] for spot in spots] == sorted(spot[1] for spot in spots)
    opened.select_option("#plane-y", "fid")
    assert "FID 90.0" in opened.locator("#plane .point").first.get_attribute("aria-label")


def test_choosing_a_data_set_changes_scores_and_images(opened):
    before = opened.locator("#stage img").first.get_attribute("src")
    opened.select_option("#dataset", "set 1 <b>&")
    assert opened.locator("#stage img").first.get_attribute("src") != before
    assert opened.locator("#table caption").inner_text() == "Scores on set 1 <b>&"


# ---- the viewer


def test_the_divider_follows_mouse_and_keys(opened):
    assert cut(opened) == (pytest.approx(0.5, abs=0.01), "inset(0px 0px 0px 50%)")
    opened.locator("#stage").scroll_into_view_if_needed()
    stage = box(opened, "#stage")
    opened.mouse.move(stage["x"] + 0.5 * stage["width"], stage["y"] + 20)
    opened.mouse.down()
    opened.mouse.move(stage["x"] + 0.25 * stage["width"], stage["y"] + 20, steps=4)
    opened.mouse.up()
    assert cut(opened)[0] == pytest.approx(0.25, abs=0.01)
    opened.keyboard.press("]")
    assert cut(opened)[0] == pytest.approx(0.30, abs=0.01)
    opened.locator("#cut").focus()
    opened.keyboard.press("Home")
    assert cut(opened) == (pytest.approx(0, abs=0.01), "inset(0px 0px 0px 0%)")
    opened.keyboard.press("f")
    assert cut(opened)[0] == pytest.approx(1, abs=0.01)


def test_all_pictures_zoom_and_pan_together(opened):
    opened.keyboard.press("g")
    assert opened.locator("#grid .view").count() == 7, "input, five methods, original"
    opened.locator("#grid .view >> nth=3").scroll_into_view_if_needed()
    tile = box(opened, "#grid .view >> nth=3")
    opened.mouse.move(tile["x"] + 0.25 * tile["width"], tile["y"] + 0.5 * tile["height"])
    opened.keyboard.down("Control")
    opened.mouse.wheel(0, -100)
    opened.keyboard.up("Control")
    zoomed = variables(opened)
    z, x, y = zoomed[0]
    assert len(zoomed) == 8, "the grid and the map of uncertainty"
    assert z == pytest.approx(2.718, rel=0.01)
    assert (x, y) == (pytest.approx(0.25 - 0.25 / z, abs=0.01), pytest.approx(0.5 - 0.5 / z, abs=0.01))
    for one in zoomed:
        assert one == pytest.approx(zoomed[0], abs=0.005)
    opened.mouse.down()
    opened.mouse.move(tile["x"] + 0.05 * tile["width"], tile["y"] + 0.5 * tile["height"], steps=3)
    opened.mouse.up()
    moved = variables(opened)
    assert moved[0][1] == pytest.approx(x + 0.2 / z, abs=0.01)
    for one in moved:
        assert one == pytest.approx(moved[0], abs=0.005)
    opened.keyboard.press("0")
    assert variables(opened)[0] == pytest.approx([1, 0, 0], abs=0.005)


def test_arrow_keys_move_the_view(opened):
    opened.locator("#stage").focus()
    opened.keyboard.press("+")
    opened.keyboard.press("+")
    z, x, _ = variables(opened)[0]
    opened.keyboard.press("ArrowRight")
    assert variables(opened)[0] == pytest.approx([z, x + 0.15 / z, variables(opened)[0][2]], abs=0.005)
    assert variables(opened)[0] == pytest.approx(variables(opened)[1], abs=0.005)


def test_images_are_ordered_by_what_a_gains_over_b(opened):
    opened.select_option("#a", "m:net")  # PSNR-Y 25 + 3 k for image k
    opened.select_option("#b", "m:bicubic")  # 30 + k
    by_name = names(opened)
    opened.select_option("#order", "a")
    assert names(opened) == by_name[::-1]
    assert opened.locator("#list small").all_text_contents() == [
        "PSNR-Y +1.00",
        "PSNR-Y −1.00",
        "PSNR-Y −3.00",
        "PSNR-Y −5.00",
    ]
    assert opened.locator("#image-name").inner_text() == by_name[3]
    opened.select_option("#order", "b")
    assert names(opened) == by_name


def test_the_difference_is_black_where_pictures_agree(opened):
    opened.select_option("#a", "m:bicubic")
    opened.select_option("#b", "m:bicubic")
    opened.keyboard.press("d")
    assert brightness(opened) < 12
    opened.select_option("#b", "m:i2sb_20")
    few = brightness(opened)
    opened.locator("#gain").fill("20")
    assert 0 < few < brightness(opened)
    assert opened.locator("#gain-value").inner_text() == "20×"


def brightness(page):
    """Mean brightness of the lower half of the stage's screenshot, 0 to 255."""
    page.wait_for_function("[...document.querySelectorAll('#stage img')].every((one) => one.complete)")
    image = cv2.imdecode(np.frombuffer(page.locator("#stage").screenshot(), np.uint8), cv2.IMREAD_COLOR)
    return image[60:].mean()


def test_insets_show_the_place_and_zoom_to_it(opened):
    assert opened.locator("#insets .crops").count() >= 1
    first = opened.locator("#insets .crops").first
    assert first.locator("button").count() == 7
    first.locator("button").nth(2).click()
    z = variables(opened)[0][0]
    assert z == pytest.approx(48 / 24 / 1.5, rel=0.01)
    assert opened.locator("#b").input_value() == "m:net"


def test_trajectory_and_uncertainty_of_the_bridge_are_shown(opened):
    assert opened.locator("#extras .maps img").count() == 1
    assert opened.locator("#extras .strip img").get_attribute("alt") == "steps of I2SB, 20 on photo 0, first to last"
    opened.keyboard.press("n")
    assert opened.locator("#extras img").count() == 0


def test_the_address_brings_the_same_view_back(opened):
    opened.keyboard.press("n")
    opened.keyboard.press("x")
    opened.keyboard.press("d")
    pair = [opened.locator(one).input_value() for one in ("#a", "#b")]
    opened.reload()
    assert opened.locator("#image-name").inner_text() == "<script>alert(2)</script>"
    assert [opened.locator(one).input_value() for one in ("#a", "#b")] == pair
    assert opened.locator("input[value=difference]").is_checked()


# ---- for everyone


def test_tab_reaches_every_control(opened):
    selector = "a[href], button, select, input, summary, [tabindex='0']"
    wanted = opened.locator(selector).evaluate_all(
        """(all) => all.filter((one) => one.checkVisibility() && !one.disabled && !one.closest("dialog"))
             .map((one, k) => { one.dataset.stop = k; return one.name === "mode" && !one.checked ? null : String(k); })
             .filter((one) => one !== null)"""
    )
    reached = set()
    for _ in range(len(wanted) + 15):
        opened.keyboard.press("Tab")
        reached.add(opened.evaluate("document.activeElement.dataset.stop"))
    assert set(wanted) <= reached and len(wanted) > 40


def test_the_list_is_walked_by_arrows_and_the_dialog_closes(opened):
    opened.locator("#list .option").first.focus()
    opened.keyboard.press("ArrowDown")
    opened.keyboard.press("ArrowDown")
    assert opened.locator("#image-name").inner_text() == "photo 2"
    assert opened.evaluate("document.activeElement.id") == "image-2"
    opened.keyboard.press("End")
    assert opened.locator("#next").is_disabled()
    opened.keyboard.press("?")
    assert opened.locator("#keys").is_visible()
    opened.locator("#keys-on").uncheck()
    opened.keyboard.press("Escape")
    assert not opened.locator("#keys").is_visible()
    opened.keyboard.press("p")
    assert opened.locator("#image-name").inner_text() == "photo 3", "single keys can be turned off"


@pytest.mark.parametrize(("width", "scheme", "modes"), [(390, "dark", "sg"), (1300, "light", "d?")])
def test_axe_finds_no_serious_fault(browser, address, width, scheme, modes):
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    page.goto(address)
    for mode in modes:
        page.keyboard.press(mode)
        faults = [fault for fault in axe.Axe().run(page)["violations"] if fault["impact"] in ("serious", "critical")]
        assert [f"{fault['id']}: {fault['nodes'][0]['html']}" for fault in faults] == [], f"view {mode}"
    context.close()


def test_a_phone_shows_it_without_scrolling_sideways(browser, address):
    context = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(address)
    for mode in "sgd":
        page.keyboard.press(mode)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.locator("#stage").tap()
    context.close()


@pytest.mark.slow
def test_a_hundred_images_of_eight_methods_open_in_two_seconds(browser, tmp_path):
    methods = [page_records.method(f"m{k}", f"Method {k}") for k in range(8)]
    page_path = write(page_records.write_records(tmp_path / "in", methods, count=100, size=(64, 96)), tmp_path / "out")
    complaints, times, loaded = Complaints(), [], []
    for _ in range(3):
        context = browser.new_context(viewport={"width": 1300, "height": 900})
        page = complaints.watch(context.new_page())
        page.on("request", lambda request, loaded=loaded: loaded.append(request.url))
        begin = time.perf_counter()
        page.goto(page_path.as_uri(), wait_until="load")
        page.wait_for_function(
            "[...document.querySelectorAll('#stage img')].every((one) => one.complete && one.naturalWidth)"
        )
        times.append(time.perf_counter() - begin)
        context.close()
    assert page_path.parent.joinpath("index_files/0/0099_7.png").is_file()
    assert complaints == []
    assert len(loaded) < 3 * 80, "thumbnails out of sight wait"
    assert min(times) < 2, times
