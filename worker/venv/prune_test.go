package venv_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"clearmlserving/worker/venv"
)

// age makes an environment look as if it was last used so long ago.
func (f fake) age(t *testing.T, e venv.Environment, by time.Duration) {
	t.Helper()
	then := time.Now().Add(-by)
	if err := os.Chtimes(e.Dir+".use", then, then); err != nil {
		t.Fatal(err)
	}
}

func there(e venv.Environment) bool {
	_, err := os.Stat(e.Python)
	return err == nil
}

func TestOnlyEnvironmentsThatNobodyUsesArePruned(t *testing.T) {
	f := newFake(t, 0)
	other := f.another() // of another process, as far as locks can tell
	var made [3]venv.Environment
	for i, maker := range []*venv.Maker{f.Maker, other, f.Maker} {
		var err error
		if made[i], err = maker.Own(t.Context(), f.base, folder(t, map[string]string{"requirements.txt": string(rune('a' + i))})); err != nil {
			t.Fatal(err)
		}
	}
	mine, others, recent := made[0], made[1], made[2]
	f.Close() // ours are free now, the other's is not
	f.age(t, mine, 31*24*time.Hour)
	f.age(t, others, 31*24*time.Hour)
	f.age(t, recent, 29*24*time.Hour)
	if n, err := f.Prune(); n != 1 || err != nil {
		t.Errorf("removed %d, %v", n, err)
	}
	if there(mine) || !there(others) || !there(recent) {
		t.Errorf("unused there: %v, used by another there: %v, used lately there: %v", there(mine), there(others), there(recent))
	}
	other.Close()
	if n, err := f.Prune(); n != 1 || err != nil || there(others) {
		t.Errorf("after its last user: removed %d, %v", n, err)
	}

	installs := f.installs(t)
	again, err := f.Own(t.Context(), f.base, folder(t, map[string]string{"requirements.txt": "a"}))
	if err != nil || !there(again) || again != mine || f.installs(t) != installs+1 {
		t.Errorf("a pruned one is made again: %v, %v", again, err)
	}
	f.age(t, again, 31*24*time.Hour) // however old: it is in use
	if n, err := f.Prune(); n != 0 || err != nil || !there(again) {
		t.Errorf("one in use: removed %d, %v", n, err)
	}
	f.Close()
}

func TestUseBeginsTheTimeOfAnEnvironmentAnew(t *testing.T) {
	f := newFake(t, 0)
	code := folder(t, map[string]string{"requirements.txt": "a"})
	e, err := f.Own(t.Context(), f.base, code)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	f.age(t, e, 40*24*time.Hour)
	if _, err := f.Own(t.Context(), f.base, code); err != nil { // found, not made
		t.Fatal(err)
	}
	f.Close()
	if n, err := f.Prune(); n != 0 || err != nil || !there(e) || f.installs(t) != 1 {
		t.Errorf("removed %d, %v", n, err)
	}
}

func TestPruningAFolderThatIsNotThereIsNoError(t *testing.T) {
	if n, err := venv.New(venv.Options{Dir: filepath.Join(t.TempDir(), "none")}).Prune(); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}
