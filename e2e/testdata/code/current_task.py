from clearml import Logger, Task


class Preprocess:
    def load(self, local_file_name):
        self.loaded = Task.current_task().id

    def process(self, data, state, collect_custom_statistics_fn=None):
        Logger.current_logger().report_scalar("from user code", "x", iteration=data["x"], value=data["x"])
        return {"task": Task.current_task().id, "loaded": self.loaded}
