package api

import (
	"context"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

// work is the transaction of one call: what calls do with several documents are its methods.
type work struct{ documents.Writer }

// write runs a call's changes in one transaction and then rings the change feed. do may
// run again, see store.Store.
func (s *Server) write(ctx context.Context, c *Call, do func(w *work) error) error {
	var rings []documents.Touched
	err := s.store.Tx(ctx, func(tx store.Tx) error {
		w := &work{documents.Writer{Tx: tx, Who: c.author(), Now: s.timestamp()}}
		err := do(w)
		rings = w.Touched
		return err
	})
	if err != nil {
		return err
	}
	for _, t := range rings {
		s.changed(t.Kind, t.ID)
	}
	return nil
}
