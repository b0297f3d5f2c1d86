"""Create the data for the pages: two trainings with scalars, plots, tables, pictures,
artifacts, and a model each. The second run's model is another version of the first one's."""

import struct
import sys
import zlib
from pathlib import Path

import joblib
from clearml import Logger, OutputModel, Task
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import train_test_split


def train(name: str, trees: int, depth: int) -> None:
    task = Task.init(
        project_name="wine",
        task_name=name,
        reuse_last_task_id=False,
        output_uri=True,
        auto_connect_frameworks=False,
    )
    task.add_tags(["forest", f"depth {depth}"])
    task.set_comment("Which of three growers a wine is from, by its chemistry.")
    task.connect({"trees": trees, "depth": depth, "seed": 7, "test share": 0.3}, name="Training")
    task.connect_configuration(
        {"data": {"name": "wine", "rows": 178}, "classes": ["A", "B", "C"]}, name="data"
    )
    data = load_wine()
    train_x, test_x, train_y, test_y = train_test_split(data.data, data.target, test_size=0.3, random_state=7)
    logger: Logger = task.get_logger()
    model = RandomForestClassifier(warm_start=True, max_depth=depth, random_state=7)
    for n in range(1, trees + 1):
        model.set_params(n_estimators=n).fit(train_x, train_y)
        logger.report_scalar("accuracy", "train", model.score(train_x, train_y), n)
        logger.report_scalar("accuracy", "test", model.score(test_x, test_y), n)
        logger.report_scalar("size", "nodes", sum(tree.tree_.node_count for tree in model.estimators_), n)
        if n % 10 == 0:
            print(f"{n} trees: accuracy {model.score(test_x, test_y):.3f}")
    logger.report_single_value("test accuracy", model.score(test_x, test_y))
    logger.report_single_value("trees", trees)
    growers = ["grower A", "grower B", "grower C"]
    matrix = confusion_matrix(test_y, model.predict(test_x))
    logger.report_confusion_matrix(
        "confusion", "test", matrix, xaxis="predicted", yaxis="true", xlabels=growers, ylabels=growers
    )
    weights = sorted(zip(model.feature_importances_, data.feature_names))[::-1][:8]
    logger.report_histogram(
        "importance", "features", [w for w, _ in weights], xlabels=[f for _, f in weights], yaxis="share"
    )
    logger.report_scatter2d(
        "alcohol and proline",
        "test",
        list(zip(test_x[:, 0], test_x[:, 12])),
        xaxis="alcohol",
        yaxis="proline",
        mode="markers",
    )
    rows = [["grower", "wines"], *[[g, str(int((test_y == i).sum()))] for i, g in enumerate(growers)]]
    logger.report_table("test set", "by grower", table_plot=rows)
    logger.report_surface("surface", "depth", [[1, 2], [3, 4]])
    Path("picture.png").write_bytes(picture(160, 90))
    logger.report_image("picture", "gradient", iteration=1, local_path="picture.png")
    task.upload_artifact("classes", {"classes": growers})
    task.upload_artifact("notes", "A forest of small trees.")
    file = f"wine-{name.replace(' ', '-')}.pkl"
    joblib.dump(model, file)
    output = OutputModel(task=task, name="wine forest", framework="ScikitLearn", tags=["wine"])
    output.update_weights(file, auto_delete_file=False)
    output.set_metadata("accuracy", f"{model.score(test_x, test_y):.4f}", "float")
    print("done")
    task.close()


def picture(width: int, height: int) -> bytes:
    """A small PNG, made without a library."""
    rows = b"".join(
        b"\0" + b"".join(bytes((x * 255 // width, y * 255 // height, 160)) for x in range(width))
        for y in range(height)
    )

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


if __name__ == "__main__":
    train(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
