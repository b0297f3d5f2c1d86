package native

import "testing"

// TestALibraryThatDisagreesWithItselfIsSaid: results of BLAS depend on the number of rows.
func TestALibraryThatDisagreesWithItselfIsSaid(t *testing.T) {
	w := running(t)
	n := load(t, w, specOf(fitted(t, "logistic20"), "logistic20", with("predict_proba"))).Status().Native
	unsteady, bits := 0, 0
	for _, c := range n.Checks {
		unsteady += c.Unsteady
		bits += c.Bits
	}
	if unsteady == 0 || bits == 0 || n.Tolerance != 1e-12 {
		t.Errorf("%d unsteady rows, %d with other bits, tolerance %g: %+v", unsteady, bits, n.Tolerance, n.Checks)
	}
}
