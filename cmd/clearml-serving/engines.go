package main

import (
	"log/slog"

	"clearmlserving/inference"
	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/graph"
	"clearmlserving/inference/engine/python"
	"clearmlserving/serving"
)

// modelEngines are the kinds of endpoints with models of Python libraries, which may be computed in Go.
var modelEngines = []string{serving.EngineSklearn, serving.EngineXGBoost, serving.EngineLightGBM}

// loaders are the engines of an instance: which loader makes the models of which kinds of endpoints.
type loaders struct{ python, models, onnx, graph, servers, language, torch engine.Loader }

// table names the kinds of endpoints of each loader. A new engine is one entry here.
func (l loaders) table() []inference.Engine {
	return []inference.Engine{
		{Kinds: []string{serving.EngineCustom, serving.EngineCustomAsync}, Loader: l.python},
		{Kinds: modelEngines, Loader: l.models},
		{Kinds: []string{serving.EngineONNX}, Loader: l.onnx},
		{Kinds: []string{serving.EngineGraph}, Loader: l.graph},
		{Kinds: []string{serving.EngineTriton, serving.EngineV2}, Loader: l.servers},
		{Kinds: []string{serving.EngineOpenAI, serving.EngineVLLM}, Loader: l.language},
		{Kinds: []string{serving.EngineTorchServe}, Loader: l.torch},
	}
}

// availableEngines are the kinds of endpoints that instances of this version run: those
// that commands offer. The others of serving.Engines can be stored, for the original.
func availableEngines() []string {
	var kinds []string
	for _, e := range (loaders{}).table() {
		kinds = append(kinds, e.Kinds...)
	}
	return kinds
}

// loaders makes the engines. Those of Python are workers, and code for what user code sees of them. What is extracted
// from models is kept in dir, or was when made; libraries that were installed are in home.
func (a *app) loaders(dir, home string, made madeFolders, workers *python.Engine, code engine.Loader, log *slog.Logger) (l loaders, err error) {
	onnx, err := a.onnxEngine(home, workers, log)
	if err != nil {
		return l, err
	}
	l = loaders{python: code, onnx: onnx, models: acceleratedEngine(dir, made, code, workers, onnx, log), graph: graph.New(log)}
	if l.servers, err = a.v2Engine(workers, log); err != nil {
		return l, err
	}
	if l.language, err = a.languageEngine(workers, log); err != nil {
		return l, err
	}
	l.torch, err = a.torchServeEngine(home, workers, log)
	return l, err
}
