"""Reports scalars, tables, plots, images and text in every way, and reads them back. Ends with "ok"."""

import json

import matplotlib
import numpy as np
import pandas as pd
import plotly.graph_objects as go
from clearml import StorageManager, Task
from PIL import Image

matplotlib.use("agg")
import matplotlib.pyplot as plt  # noqa: E402  # after the choice of what draws

task = Task.init(
    project_name="reports",
    task_name="reports everything",
    reuse_last_task_id=False,
    auto_resource_monitoring=False,
)
logger = task.get_logger()
for step in range(20):
    logger.report_scalar("loss", "train", value=1 / (step + 1), iteration=step)
    logger.report_scalar("loss", "test / other", value=2 / (step + 1), iteration=step)
logger.report_scalar("odd", "none", value=float("nan"), iteration=1)
logger.report_scalar("odd", "none", value=float("inf"), iteration=2)
logger.report_single_value("best", 0.5)
logger.report_histogram("bars", "h", values=[3, 1, 2], iteration=1, xlabels=["a", "b", "c"])
logger.report_vector("vector", "v", values=[1.0, 2.0], iteration=1)
logger.report_confusion_matrix("confusion", "c", matrix=np.eye(3).tolist(), iteration=1)
logger.report_scatter2d("scatter", "s", scatter=[(0, 1), (1, 3)], iteration=1)
logger.report_scatter3d("scatter 3d", "s", scatter=[(0, 1, 2), (1, 3, 4)], iteration=1)
logger.report_line_plot(
    "lines",
    series=[{"name": "l", "data": np.array([[0, 0], [1, 1]])}],
    iteration=1,
    xaxis="x",
    yaxis="y",
)
logger.report_surface("surface", "s", matrix=np.eye(4), iteration=1)
logger.report_table(
    "table", "t", iteration=1, table_plot=pd.DataFrame({"Größe": [1, 2], "name": ["a", "é ✓"]})
)
logger.report_plotly("plotly", "p", iteration=1, figure=go.Figure(go.Bar(x=["a", "b"], y=[2, 3])))
plt.plot([1, 2, 3], [4, 5, 6])
plt.title("drawn")
plt.show()  # the SDK takes the figure and reports it
plt.close()
figure, axes = plt.subplots()
axes.imshow(np.zeros((4, 4)))
logger.report_matplotlib_figure("a figure", "f", figure=figure, iteration=2)
logger.report_image("image", "of/numbers", iteration=3, image=np.full((8, 8, 3), 200, dtype=np.uint8))
logger.report_image("image", "of pillow", iteration=3, image=Image.new("RGB", (8, 8), "red"))
logger.report_media("page", "m", iteration=3, stream="<b>hello</b>", file_extension=".html")
logger.report_text("a line, Größe ✓", print_console=False)
logger.report_text("x" * 100_000, print_console=False)
print("printed line")
task.flush(wait_for_uploads=True)
task.close()

read = Task.get_task(task_id=task.id)
scalars = read.get_reported_scalars()
assert len(scalars["loss"]["train"]["y"]) == 20, scalars["loss"]["train"]
assert scalars["loss"]["test / other"]["y"][0] == 2.0, scalars["loss"]
assert read.get_reported_single_values() == {"best": 0.5}, read.get_reported_single_values()
assert read.get_reported_single_value("best") == 0.5
assert read.get_last_iteration() == 20 - 1, read.get_last_iteration()
last = read.get_last_scalar_metrics()["loss"]["train"]
assert (last["last"], last["min"], last["max"]) == (0.05, 0.05, 1.0), last

plots = {plot["metric"]: plot for plot in read.get_reported_plots()}
wanted = {
    "bars",
    "vector",
    "confusion",
    "scatter",
    "scatter 3d",
    "lines",
    "surface",
    "table",
    "plotly",
    "drawn",
    "a figure",
}
assert wanted <= set(plots), f"missing: {wanted - set(plots)}; there are {sorted(plots)}"
for name, plot in plots.items():
    assert "data" in json.loads(plot["plot_str"]), name
assert json.loads(plots["plotly"]["plot_str"])["data"][0]["type"] == "bar"
assert "é ✓" in json.dumps(json.loads(plots["table"]["plot_str"]), ensure_ascii=False)

images = {
    (sample["metric"], sample["variant"]): sample["url"]
    for metric in ("image", "page")
    for sample in read.get_debug_samples(metric, "of/numbers" if metric == "image" else "m")
}
assert set(images) == {("image", "of/numbers"), ("page", "m")}, images
for url in images.values():
    copy = StorageManager.get_local_copy(url, force_download=True)
    assert copy, url
    if url.endswith(".html"):
        with open(copy, encoding="utf-8") as page:
            assert page.read() == "<b>hello</b>"
    else:
        with Image.open(copy) as image:
            assert image.size == (8, 8), image.size
console = "".join(read.get_reported_console_output(number_of_reports=100))
assert "a line, Größe ✓" in console and "printed line" in console and "x" * 100_000 in console, console[:2000]
print("ok")
