"""What the Preprocess class may rely on."""

import json

import pytest

from answer import LoadError


def test_steps_run_in_order_with_one_fresh_state(load):
    endpoint = load("""
        class Preprocess:
            def preprocess(self, body, state, collect_custom_statistics_fn):
                assert state == {}
                state["trail"] = ["pre"]
                return body["x"]
            def process(self, data, state, collect_custom_statistics_fn):
                state["trail"].append("process")
                return data + 1
            def postprocess(self, data, state, collect_custom_statistics_fn):
                return {"y": data, "trail": state["trail"] + ["post"], "collect": collect_custom_statistics_fn}
    """)
    for _ in range(2):
        assert endpoint.value({"x": 1}) == {"y": 2, "trail": ["pre", "process", "post"], "collect": None}


def test_every_method_is_optional(load):
    assert load("class Preprocess: pass").value({"x": 1}) is None


def test_custom_without_code_answers_null(load):
    assert load(None).value({"x": 1}) is None


def test_arguments_may_have_any_names(load):
    endpoint = load("""
        class Preprocess:
            @staticmethod
            def process(*args):
                return len(args)
    """)
    assert endpoint.value() == 3


def test_model_endpoint_has_every_field(load):
    endpoint = load(
        """
        class Preprocess:
            def __init__(self):
                self.early = self.model_endpoint.serving_url
                self.model_endpoint = None
            def load(self, local_file_name):
                self.path = local_file_name
            def process(self, data, state, collect_custom_statistics_fn):
                m = self.model_endpoint
                return [self.early, self.path, m.serving_url, m.version, m.model_id, m.input_size, m.input_type,
                        m.input_name, m.output_size, m.output_type, m.output_name, m.auxiliary_cfg,
                        m.preprocess_artifact, m.engine_type, m.other, m.as_dict(remove_null_entries=True)]
    """,
        fields={"serving_url": "test", "version": "1", "engine_type": "custom", "other": [1]},
        model_path="/models/a.pkl",
    )
    record = {"engine_type": "custom", "serving_url": "test", "version": "1", "other": [1]}
    nothing = [None] * 9
    assert endpoint.value() == ["test", "/models/a.pkl", "test", "1", *nothing, "custom", [1], record]


def test_class_with_slots_still_loads(load):
    endpoint = load("""
        class Preprocess:
            __slots__ = ("model_endpoint",)
            def process(self, data, state, collect_custom_statistics_fn):
                return self.model_endpoint.serving_url
    """)
    assert endpoint.value() == "test"


def test_load_gets_none_without_a_model(load):
    endpoint = load("""
        class Preprocess:
            def load(self, local_file_name):
                self.got = [local_file_name]
            def process(self, data, state, collect_custom_statistics_fn):
                return self.got
    """)
    assert endpoint.value() == [None]


def test_load_result_is_the_model_of_a_model_engine(load):
    endpoint = load(
        """
        class Model:
            def predict(self, data):
                return [sum(row) for row in data]
        class Preprocess:
            def load(self, local_file_name):
                return Model()
            def process(self, data, state, collect_custom_statistics_fn):
                raise AssertionError("ignored by this engine, as in the original")
            def postprocess(self, data, state, collect_custom_statistics_fn):
                return {"y": data}
        """,
        engine="sklearn",
    )
    assert endpoint.value([[1, 2], [3, 4]]) == {"y": [3, 7]}


def test_model_without_predict_is_a_load_error(load):
    with pytest.raises(LoadError, match="a dict has no predict method"):
        load("class Preprocess:\n    def load(self, path): return {'a': 1}\n", engine="lightgbm")


@pytest.mark.parametrize("engine", ["sklearn", "xgboost", "lightgbm"])
def test_model_engine_without_model_says_what_to_do(load, engine):
    with pytest.raises(LoadError, match=f"the {engine} engine needs one.*--model-id"):
        load(None, engine=engine)


def test_object_without_preprocess_is_refused_with_a_remedy(load):
    code = """
        class Model:
            def predict(self, data): return data
        class Preprocess:
            def load(self, path): return Model()
    """
    endpoint = load(code, engine="sklearn")
    status, detail = endpoint.detail({"x0": 1, "x1": 2})
    assert status == 422
    assert detail.startswith("Error [<class 'ValueError'>] processing request: this endpoint has no preprocess")
    assert "a JSON object (keys 'x0', 'x1')" in detail
    assert "--preprocess" in detail
    assert endpoint.detail(b"")[0] == 422
    assert endpoint.value([[1]]) == [[1]]


def test_coroutine_methods_of_a_sync_engine_run(load):
    endpoint = load("""
        import asyncio
        class Preprocess:
            async def load(self, local_file_name):
                self.loop = asyncio.get_running_loop()
            async def preprocess(self, body, state, collect_custom_statistics_fn):
                await asyncio.sleep(0)
                return body + 1
            def process(self, data, state, collect_custom_statistics_fn):
                return asyncio.sleep(0, data + 1)
            async def postprocess(self, data, state, collect_custom_statistics_fn):
                return [data, self.loop is asyncio.get_running_loop()]
    """)
    assert endpoint.value(1) == [3, True]


def test_request_that_comes_while_a_coroutine_waits_is_answered(process):
    endpoint = process(
        """
        async def work():
            return self.send_request("inner") + data
        return work()
        """
    )

    def call(url, version, body, content_type):
        endpoint.host.call = inner
        return 200, "application/json", endpoint.ask(20).body

    def inner(url, version, body, content_type):
        return 200, "application/json", b"300"

    endpoint.host.call = call
    assert endpoint.value(1) == 321


class TestSendRequest:
    def ask(self, process, code, answer=(200, "application/json", b'{"y":[1]}')):
        endpoint = process(code)
        endpoint.host.answer = answer
        return endpoint

    def test_slashes_are_stripped_and_data_is_json(self, process):
        endpoint = self.ask(process, "return self.send_request('/name/', version=None, data={'x': 1})")
        assert endpoint.value() == {"y": [1]}
        assert endpoint.host.calls == [("name", None, b'{"x":1}', "application/json")]

    def test_version_may_be_a_number(self, process):
        endpoint = self.ask(process, "return self.send_request(endpoint='a/b', version=2)")
        endpoint.value()
        assert endpoint.host.calls == [("a/b", "2", b"", "application/json")]

    def test_bytes_go_as_they_are(self, process):
        endpoint = self.ask(process, "return self.send_request('a', None, b'\\xff')")
        endpoint.value()
        assert endpoint.host.calls == [("a", None, b"\xff", "application/octet-stream")]

    def test_other_content_types_come_back_as_bytes(self, process):
        endpoint = self.ask(process, "return len(self.send_request('a'))", (200, "image/png", b"\xff\xfe"))
        assert endpoint.value() == 2

    def test_error_status_is_none_and_logged(self, process):
        endpoint = self.ask(
            process, "return self.send_request('a', '1')", (500, "application/json", b'{"detail":"why"}')
        )
        assert endpoint.value() is None
        assert endpoint.host.lines == [
            ("warning", 'send_request to \'a/1\' was answered 500, so it returns None: {"detail":"why"}')
        ]

    def test_error_status_raises_when_asked(self, process):
        code = """
        from clearml_serving_worker import SendRequestError
        try:
            self.send_request('a', raise_on_error=True)
        except SendRequestError as error:
            return [error.status, error.text]
        """
        assert self.ask(process, code, (404, "text/plain", b"no")).value() == [404, "a: no"]

    def test_empty_name_is_refused(self, process):
        status, detail = self.ask(process, "return self.send_request('/')").detail()
        assert status == 422
        assert "name of an endpoint" in detail

    def test_timeout_is_given_to_a_host_that_takes_it(self, process, host):
        host.call = lambda url, version, body, content_type, timeout=None: (200, "", json.dumps(timeout).encode())
        assert process("return self.send_request('a', timeout=1.5)").value() == 1.5

    def test_users_own_send_request_is_replaced(self, load):
        endpoint = load("""
            class Preprocess:
                def send_request(self): raise AssertionError
                def process(self, data, state, collect_custom_statistics_fn):
                    return self.send_request("a")
        """)
        assert endpoint.value() == {}

    def test_in_custom_async_it_is_awaited(self, load):
        endpoint = load(
            """
            import asyncio
            class Preprocess:
                async def process(self, data, state, collect_custom_statistics_fn):
                    return await asyncio.gather(self.send_request("a"), self.send_request("b", timeout=1))
            """,
            engine="custom_async",
        )
        assert endpoint.value() == [{}, {}]
        assert [call[0] for call in endpoint.host.calls] == ["a", "b"]


class TestUnload:
    def test_unload_is_called_once(self, load):
        endpoint = load("""
            calls = []
            class Preprocess:
                def unload(self): calls.append(1)
        """)
        import sys

        calls = sys.modules["Preprocess"].calls
        endpoint.endpoint.unload()
        endpoint.endpoint.unload()
        assert calls == [1]
        assert endpoint.endpoint.model is None

    @pytest.mark.parametrize("prefix", ["", "async "])
    def test_failure_is_logged(self, load, prefix):
        endpoint = load(f"class Preprocess:\n    {prefix}def unload(self): raise OSError('busy')\n")
        endpoint.endpoint.unload()
        assert endpoint.host.lines[0][0] == "error"
        assert endpoint.host.lines[0][1].startswith("Failed unloading model: busy\n")
