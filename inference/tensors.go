package inference

import (
	"context"
	"errors"

	"clearmlserving/inference/engine"
	v2 "clearmlserving/inference/v2"
)

// signatureOf is the signature of a model, empty if it has none.
func signatureOf(m engine.Model) engine.Signature {
	if signed, ok := m.(engine.Signed); ok {
		return signed.Signature()
	}
	return engine.Signature{}
}

// inferTensors asks a model with tensors that fit its signature. A model that takes no tensors is asked with them as a
// JSON body, which req then has instead, so that copies of the request are those of any other.
func inferTensors(ctx context.Context, m engine.Model, req *engine.Request) (*engine.Response, error) {
	signature := signatureOf(m)
	if body, ok := freeBody(&signature, req.Tensors); ok {
		return inferBody(ctx, m, req, body)
	}
	tensors, err := v2.Fit(&signature, req.Tensors)
	if err != nil {
		return nil, err
	}
	req.Tensors = tensors
	answer, err := m.Infer(ctx, req)
	failed, ok := errors.AsType[*engine.Error](err)
	if !ok || failed.Kind != engine.KindNoTensors {
		return answer, err
	}
	body, err := v2.Body(req.Tensors, signature.Table)
	if err != nil {
		return nil, err
	}
	return inferBody(ctx, m, req, body)
}

func inferBody(ctx context.Context, m engine.Model, req *engine.Request, body []byte) (*engine.Response, error) {
	req.Body, req.ContentType, req.Tensors, req.Loan = body, jsonType, nil, nil
	return m.Infer(ctx, req)
}

// freeBody is the body in the tensors of a request to a model that tells nothing of its inputs.
func freeBody(signature *engine.Signature, tensors []engine.Tensor) ([]byte, bool) {
	if len(signature.Inputs) > 0 {
		return nil, false
	}
	return v2.FreeBody(tensors)
}

// answerTensors are the tensors of an answer with a body to a request with tensors.
func answerTensors(m engine.Model, asked []engine.Tensor, body []byte) []engine.Tensor {
	signature := signatureOf(m)
	if _, ok := freeBody(&signature, asked); ok && len(signature.Outputs) == 0 {
		return []engine.Tensor{v2.FreeAnswer(body)}
	}
	return v2.Tensors(body, signature.Outputs)
}

// rowsOf is the number of rows of a request to a model that computes on rows, else 1.
func rowsOf(m engine.Model, tensors []engine.Tensor) int64 {
	signature := signatureOf(m)
	if len(tensors) == 0 || len(tensors[0].Shape) == 0 || !v2.Batched(&signature) {
		return 1
	}
	return max(tensors[0].Shape[0], 1)
}
