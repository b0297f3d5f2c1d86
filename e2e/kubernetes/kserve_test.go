package kubernetes

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"clearmlserving/inference/grpcfront/pb"
)

// kserveModels makes a model of each format that the runtime serves, and writes what each predicts for the same rows.
const kserveModels = `
import json, pathlib, shutil, sys
import joblib, lightgbm, numpy as np, xgboost
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

into, onnx = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
x, y = load_iris(return_X_y=True)
x = x.astype(np.float32)
rows = x[::30]
wanted = {}

def folder(name):
    (into / name).mkdir(parents=True)
    return into / name

model = LogisticRegression(max_iter=300).fit(x, y)
joblib.dump(model, folder("sklearn") / "model.joblib")
wanted["sklearn"] = model.predict(rows).tolist()
model = xgboost.train({"objective": "reg:squarederror", "max_depth": 3}, xgboost.DMatrix(x, y), 10)
model.save_model(folder("xgboost") / "model.ubj")
wanted["xgboost"] = model.predict(xgboost.DMatrix(rows)).tolist()
model = lightgbm.train({"objective": "regression", "verbose": -1, "num_leaves": 4}, lightgbm.Dataset(x, y), 10)
model.save_model(folder("lightgbm") / "model.txt")
wanted["lightgbm"] = model.predict(rows).tolist()
shutil.copy(onnx / "logistic.onnx", folder("onnx") / "model.onnx")
answers = json.loads((onnx / "answers.json").read_text())["logistic"]
wanted["onnx"] = answers["labels"]
print(json.dumps({"wanted": wanted, "rows": rows.tolist(), "onnx_rows": answers["x"]}))
`

// TestKubernetesKServeChoosesOurRuntime has KServe's own controller serve models of four formats: it must prefer our runtime
// to its own servers, put the model into its pods, call them ready, and clients get right answers in each protocol.
func TestKubernetesKServeChoosesOurRuntime(t *testing.T) {
	c := cluster{t, os.Getenv("CLEARML_SERVING_E2E_KUBERNETES")}
	if _, err := c.try(c.home+"/bin/kubectl", "get", "crd", "inferenceservices.serving.kserve.io"); err != nil {
		t.Skip("KServe is not in the cluster: make e2e-kubernetes puts it there, unless NO_KSERVE is given")
	}
	c.newNamespace()
	folder := c.addVolume("models", "ReadOnlyMany")
	var models struct {
		Wanted   map[string][]float64
		Rows     [][]float32
		OnnxRows [][]float32 `json:"onnx_rows"`
	}
	if err := json.Unmarshal([]byte(c.must(os.Getenv("CLEARML_SERVING_TEST_TABLES"), "-c", kserveModels, folder, "onnxruntime/testdata")), &models); err != nil {
		t.Fatal(err)
	}

	// The example as it is, with the image that was built here.
	runtime, err := os.ReadFile("../../helm/examples/kserve-clusterservingruntime.yaml")
	if err != nil {
		t.Fatal(err)
	}
	const image = "localhost/clearml-serving-inference:now"
	text := strings.Replace(string(runtime), "image: clearml-serving-inference:0.1.0", "image: "+image+"\n      imagePullPolicy: Never", 1)
	if !strings.Contains(text, image) {
		t.Fatal("the example has another image than this test knows")
	}
	c.apply(text)

	for _, test := range []struct{ format, protocol, port string }{
		{"sklearn", "v2", ""},
		{"xgboost", "v1", ""},
		{"lightgbm", "v2", ""},
		{"onnx", "v2", ""},
		{"sklearn", "grpc-v2", "\n      ports: [{name: h2c, containerPort: 8090, protocol: TCP}]"},
	} {
		t.Run(test.format+" "+test.protocol, func(t *testing.T) {
			c := cluster{t, c.home}
			c.apply(fmt.Sprintf(`apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {name: flowers, namespace: %s}
spec:
  predictor:
    minReplicas: 1
    model:
      modelFormat: {name: %s}
      protocolVersion: %s
      storageUri: pvc://models/%s
      resources: {requests: {cpu: 100m, memory: 256Mi}, limits: {cpu: "1", memory: 1Gi}}%s
`, namespace, test.format, test.protocol, test.format, test.port))
			defer c.kubectl("delete", "inferenceservice", "flowers", "--wait=true")
			c.kubectl("wait", "--for=condition=Ready", "inferenceservice/flowers", "--timeout=10m")
			if got := c.kubectl("get", "deployment", "flowers-predictor", "-o", "jsonpath={.spec.template.spec.containers[0].image}"); got != image {
				t.Fatalf("KServe has chosen %s", got)
			}
			rows := models.Rows
			if test.format == "onnx" {
				rows = models.OnnxRows
			}
			port := freePort(t)
			address := "127.0.0.1:" + port
			c.forward("flowers-predictor", port+":80")
			var got []float64
			switch test.protocol {
			case "v1":
				got = predictV1(t, "http://"+address, rows)
			case "v2":
				got = predictV2(t, "http://"+address, rows)
			default:
				got = predictGRPC(t, address, rows)
			}
			want := models.Wanted[test.format]
			if len(got) != len(want) {
				t.Fatalf("%d predictions, want %d", len(got), len(want))
			}
			for i := range want {
				if math.Abs(got[i]-want[i]) > 1e-5 {
					t.Errorf("row %d: %v, want %v", i, got[i], want[i])
				}
			}
		})
	}
	c.must(c.home+"/bin/kubectl", "delete", "namespace", namespace, "--wait=true")
}

func post(t *testing.T, url string, body, answer any) {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.Post(url, "application/json", bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	got, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	if r.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s: %s", url, r.Status, got)
	}
	if err := json.Unmarshal(got, answer); err != nil {
		t.Fatalf("%s: %v: %s", url, err, got)
	}
}

func predictV1(t *testing.T, url string, rows [][]float32) []float64 {
	t.Helper()
	var answer struct{ Predictions []float64 }
	post(t, url+"/v1/models/flowers:predict", map[string]any{"instances": rows}, &answer)
	return answer.Predictions
}

func predictV2(t *testing.T, url string, rows [][]float32) []float64 {
	t.Helper()
	var metadata struct{ Inputs []struct{ Name string } }
	r, err := http.Get(url + "/v2/models/flowers")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if err := json.NewDecoder(r.Body).Decode(&metadata); err != nil {
		t.Fatal(err)
	}
	if len(metadata.Inputs) != 1 {
		t.Fatalf("inputs of the model: %+v", metadata.Inputs)
	}
	var answer struct {
		Outputs []struct{ Data json.RawMessage }
	}
	post(t, url+"/v2/models/flowers/infer", map[string]any{"inputs": []any{map[string]any{
		"name": metadata.Inputs[0].Name, "shape": []int{len(rows), len(rows[0])}, "datatype": "FP32", "data": rows,
	}}}, &answer)
	var got []float64
	if err := json.Unmarshal(answer.Outputs[0].Data, &got); err != nil {
		t.Fatalf("%v: %s", err, answer.Outputs[0].Data)
	}
	return got
}

func predictGRPC(t *testing.T, address string, rows [][]float32) []float64 {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // a test
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const service = "/inference.GRPCInferenceService/"
	var metadata pb.ModelMetadataResponse
	if err := conn.Invoke(ctx, service+"ModelMetadata", &pb.ModelMetadataRequest{Name: "flowers"}, &metadata); err != nil {
		t.Fatal(err)
	}
	var values []float32
	for _, row := range rows {
		values = append(values, row...)
	}
	var answer pb.ModelInferResponse
	if err := conn.Invoke(ctx, service+"ModelInfer", &pb.ModelInferRequest{ModelName: "flowers", Inputs: []*pb.ModelInferRequest_InferInputTensor{{
		Name: metadata.GetInputs()[0].GetName(), Datatype: "FP32", Shape: []int64{int64(len(rows)), int64(len(rows[0]))},
		Contents: &pb.InferTensorContents{Fp32Contents: values},
	}}}, &answer); err != nil {
		t.Fatal(err)
	}
	// Values that were sent as numbers are answered as bytes, as Triton does.
	if got := answer.GetOutputs()[0].GetDatatype(); got != "INT64" {
		t.Fatalf("datatype %s", got)
	}
	raw := answer.GetRawOutputContents()[0]
	got := make([]float64, len(raw)/8)
	for i := range got {
		got[i] = float64(int64(binary.LittleEndian.Uint64(raw[8*i:]))) //nolint:gosec // its bits are a signed number
	}
	return got
}
