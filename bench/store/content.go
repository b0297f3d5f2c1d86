package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
)

type object = map[string]any

// writeContent writes a backup as "server backup" does, of tasks and models of many users in many
// projects.
func writeContent(path string, tasks, models int) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	packed, err := zstd.NewWriter(f, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return errors.Join(err, f.Close())
	}
	w := &contentWriter{tar: tar.NewWriter(packed)}
	w.entry("backup.json", object{"form": 1, "version": "bench", "created": stamp(0)})
	for i := range projects {
		w.document("project", object{"id": projectID(i), "name": fmt.Sprintf("team %d/project %d", i%10, i), "created": stamp(i), "last_update": stamp(i), "tags": []any{}, "system_tags": []any{}})
	}
	for i := range tasks {
		w.document("task", task(i))
	}
	for i := range models {
		w.document("model", model(i))
	}
	w.flush()
	w.entry("contents.json", object{"settings": 0, "documents": w.documents, "events": 0, "files": 0, "file_bytes": 0})
	return errors.Join(w.err, w.tar.Close(), packed.Close(), f.Close())
}

type contentWriter struct {
	tar       *tar.Writer
	pending   bytes.Buffer
	entries   int
	documents int
	err       error // the first one
}

func (w *contentWriter) document(kind string, doc object) {
	w.documents++
	w.err = errors.Join(w.err, json.NewEncoder(&w.pending).Encode(object{"document": object{"kind": kind, "doc": doc}}))
	if w.pending.Len() > 4<<20 {
		w.flush()
	}
}

func (w *contentWriter) flush() {
	w.entries++
	w.write(fmt.Sprintf("records/%06d.jsonl", w.entries), w.pending.Bytes())
	w.pending.Reset()
}

func (w *contentWriter) entry(name string, v object) {
	text, err := json.Marshal(v)
	w.err = errors.Join(w.err, err)
	w.write(name, text)
}

func (w *contentWriter) write(name string, text []byte) {
	if w.err == nil {
		w.err = w.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(text))})
	}
	if w.err == nil {
		_, w.err = w.tar.Write(text)
	}
}

// Half of the content is in permanent projects, the other half in projects that were created one
// after the other: the content of an old one is contiguous, and far from new content.
const (
	steadyProjects = 100
	projects       = steadyProjects + 20
	// era is the number of tasks, and of models, per such project.
	era = 5_000
)

func stamp(minutes int) string {
	return time.Date(2026, 1, 1, 0, minutes, 0, 0, time.UTC).Format("2006-01-02T15:04:05.000000+00:00")
}

// id spreads numbers over all ids, as random ids are.
func id(kind string, i int) string {
	x := uint64(i+1) * 0x9e3779b97f4a7c15
	return fmt.Sprintf("%016x%014x%s", x, uint64(i)*0xff51afd7ed558ccd>>8, kind)
}

func projectID(i int) string { return id("0c", i) }

// steadyProject is a permanent project.
func steadyProject(n int) string { return projectID(n % steadyProjects) }

// projectOf is the project of the i-th task or model.
func projectOf(i int) string {
	if i/10%2 == 0 {
		return steadyProject(i%10 + i/20%10*10)
	}
	return oldProject(i / era)
}

// oldProject is one of the projects created one after the other.
func oldProject(n int) string { return projectID(steadyProjects + n%(projects-steadyProjects)) }
func taskID(i int) string     { return id("0a", i) }

var words = []string{"resnet", "iris", "churn", "forecast", "ranking", "speech", "fraud", "vision", "tabular", "embedding"}

func task(i int) object {
	statuses := []string{"created", "in_progress", "completed", "stopped", "published"}
	doc := object{
		"id": taskID(i), "name": fmt.Sprintf("%s training %d of %s", words[i%len(words)], i, words[i/7%len(words)]),
		"type": "training", "status": statuses[i%len(statuses)], "project": projectOf(i), "user": id("0d", i%20), "company": id("0e", 0),
		"created": stamp(i), "last_update": stamp(i), "last_change": stamp(i), "status_changed": stamp(i), "started": stamp(i),
		"comment": fmt.Sprint("made by run ", i*7), "tags": []string{fmt.Sprint("t", i%10), fmt.Sprint("era ", i/era)}, "system_tags": []string{}, "last_iteration": i % 1000,
		"hyperparams": object{"Args": object{"lr": object{"section": "Args", "name": "lr", "value": fmt.Sprint(i % 7)}}},
		"script":      object{"diff": strings.Repeat("some code\n", 100), "entry_point": "train.py"},
		"models":      object{"input": []any{}, "output": []any{}}, "execution": object{}, "output": object{}, "runtime": object{}, "configuration": object{}, "container": object{},
	}
	switch {
	case i%2000 == 0:
		doc["type"], doc["system_tags"] = "service", []string{"serving-control-plane"}
	case i%20 == 0:
		doc["system_tags"] = []string{"archived"}
	case i%9973 == 0:
		doc["tags"] = []string{"rare"}
	}
	return doc
}

func model(i int) object {
	frameworks := []string{"ScikitLearn", "PyTorch", "XGBoost", "ONNX"}
	return object{
		"id": id("0b", i), "name": fmt.Sprintf("%s model %d", words[i%len(words)], i), "project": projectOf(i), "task": taskID(i),
		"user": id("0d", i%20), "company": id("0e", 0), "framework": frameworks[i%len(frameworks)], "ready": i%3 == 0,
		"uri": fmt.Sprintf("http://files:8081/project/model-%d/model.pkl", i), "created": stamp(i), "last_update": stamp(i), "last_change": stamp(i),
		"tags": []string{fmt.Sprint("m", i%10), fmt.Sprint("era ", i/era)}, "system_tags": []string{}, "labels": object{}, "metadata": object{},
	}
}
