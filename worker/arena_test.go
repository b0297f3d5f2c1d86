package worker

import (
	"bytes"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lendable skips where no memory can be shared.
func lendable(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("bodies go through the socket here")
	}
}

func testArena(t *testing.T) *arena {
	t.Helper()
	lendable(t)
	a := &arena{}
	t.Cleanup(a.close)
	return a
}

func mustLend(t *testing.T, a *arena, size int) *Loan {
	t.Helper()
	l := a.lend(size)
	if l == nil {
		t.Fatalf("nothing lent for %d bytes", size)
	}
	return l
}

func TestLoansDoNotOverlapAndAreUsedAgain(t *testing.T) {
	a := testArena(t)
	var loans []*Loan
	for i, size := range []int{1, 1 << 18, 1<<18 + 1, 3 << 20, 3 << 20, 1 << 18} {
		l := mustLend(t, a, size)
		if len(l.Bytes()) != size {
			t.Fatalf("%d bytes lent for %d", len(l.Bytes()), size)
		}
		for j := range l.Bytes() {
			l.Bytes()[j] = byte(i + 1)
		}
		loans = append(loans, l)
	}
	for i, l := range loans {
		if want := bytes.Repeat([]byte{byte(i + 1)}, l.size); !bytes.Equal(l.Bytes(), want) {
			t.Errorf("loan %d was written over", i)
		}
		read := make([]byte, l.size)
		if n, err := a.file.ReadAt(read, l.offset); n != l.size || err != nil || !bytes.Equal(read, l.Bytes()) {
			t.Errorf("loan %d is not what the file has at %d: %v", i, l.offset, err)
		}
	}
	handed := a.handed
	for _, l := range loans {
		l.Release()
	}
	for range 100 {
		mustLend(t, a, 3<<20-1).Release()
	}
	if a.handed != handed {
		t.Errorf("%d bytes of the file are in use, %d would do", a.handed, handed)
	}
}

func TestALoanIsUsedAgainOnlyWhenItsLastHolderGivesItBack(t *testing.T) {
	a := testArena(t)
	l := mustLend(t, a, 1<<20)
	l.hold() // a request at a worker
	l.Release()
	if other := mustLend(t, a, 1<<20); other == l {
		t.Fatal("lent twice")
	}
	l.Release()
	if other := mustLend(t, a, 1<<20); other != l {
		t.Fatal("not used again")
	}
}

func TestAnArenaThatIsFullLendsNothing(t *testing.T) {
	a := testArena(t)
	if l := a.lend(1<<maxClass + 1); l != nil {
		t.Error("lent more than there can be")
	}
	for range arenaSize >> maxClass {
		mustLend(t, a, 1<<maxClass)
	}
	if l := a.lend(1); l != nil {
		t.Error("lent beyond the end")
	}
}

func TestMemoryThatNobodyUsesComesBack(t *testing.T) {
	a := testArena(t)
	l := mustLend(t, a, 8<<20)
	for i := range l.Bytes() {
		l.Bytes()[i] = 1
	}
	inUse := func() int64 {
		var st unix.Stat_t
		if err := unix.Fstat(int(a.file.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks * 512
	}
	if inUse() < 8<<20 {
		t.Fatalf("%d bytes in use", inUse())
	}
	a.trim(time.Now().Add(time.Hour)) // it is lent
	if inUse() < 8<<20 {
		t.Error("memory was taken from under its holder")
	}
	now := time.Now()
	l.Release()
	a.trim(now.Add(arenaIdle))
	if inUse() < 8<<20 {
		t.Error("memory is not kept for the next body")
	}
	a.trim(time.Now().Add(arenaIdle + time.Second))
	if got := inUse(); got != 0 {
		t.Errorf("%d bytes are kept", got)
	}
	if l = mustLend(t, a, 8<<20); l.Bytes()[0] != 0 {
		t.Error("memory came back with what was in it")
	}
}

func TestAnArenaEndsWithItsLastLoan(t *testing.T) {
	a := testArena(t)
	l, back := mustLend(t, a, 1), mustLend(t, a, 1)
	back.Release()
	a.close()
	a.close()
	if a.lend(1) != nil {
		t.Error("lent after close")
	}
	if _, err := a.share(); err == nil {
		t.Error("shared after close")
	}
	l.Bytes()[0] = 1 // still there
	l.Release()
	if a.all != nil {
		t.Error("still mapped")
	}
}

// A worker holds what we map. If it could make that shorter, the next access would
// end the whole service.
func TestWhatIsSharedCannotBeCutOff(t *testing.T) {
	a := testArena(t)
	bodies, err := a.share()
	if err != nil {
		t.Fatal(err)
	}
	page, marks, err := newMarks()
	if err != nil {
		t.Fatal(err)
	}
	defer page.close()
	for _, file := range []*os.File{bodies, marks} {
		if err := file.Truncate(0); err == nil {
			t.Errorf("%s can be cut", file.Name())
		}
		if _, err := file.WriteAt([]byte("x"), 0); err == nil && file == bodies {
			t.Error("bodies can be written to")
		}
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestABodyThatLiesElsewhereIsNotTakenForALoan(t *testing.T) {
	a := testArena(t)
	l := mustLend(t, a, 1<<18)
	for name, c := range map[string]struct {
		body []byte
		want bool
	}{
		"all of it":     {l.Bytes(), true},
		"its beginning": {l.Bytes()[:10], true},
		"its middle":    {l.Bytes()[1:], false},
		"nothing":       {nil, false},
		"another's":     {[]byte("decompressed"), false},
	} {
		if got := l.holds(c.body); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
