package proc

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"
)

func TestTheMemoryOfAProcessIsItsProportionalShare(t *testing.T) {
	const rollup = "5581-7ffd ---p 00000000 00:00 0 [rollup]\nRss:               27948 kB\nPss:                9120 kB\nPss_Dirty:          3000 kB\n"
	if n, err := pssOf(rollup); err != nil || n != 9120<<10 {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := pssOf("Rss: 3 kB\n"); err == nil {
		t.Error("a text without the line was accepted")
	}
	if n, err := PSS(os.Getpid()); err != nil || n < 1<<20 {
		t.Errorf("this process has %d bytes, %v", n, err)
	}
}

func TestATreeHoldsTheChildren(t *testing.T) {
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	if tree := Tree(os.Getpid()); !slices.Contains(tree, child.Process.Pid) || !slices.Contains(tree, os.Getpid()) {
		t.Errorf("%v lacks %d or ourselves", tree, child.Process.Pid)
	}
	if tree := Tree(child.Process.Pid); len(tree) != 1 {
		t.Errorf("below sleep: %v", tree)
	}
}

func TestAConnectionBelongsToWhoAcceptedIt(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	owner, err := Owner(os.Getpid(), netip.MustParseAddrPort(client.LocalAddr().String()))
	if err != nil || owner != os.Getpid() {
		t.Errorf("owner is %d (%v), want %d", owner, err, os.Getpid())
	}
}

func TestASocketThatNobodyAcceptedHasNoOwner(t *testing.T) {
	const table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n" +
		"   0: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 0 1 0\n" +
		"   1: 0100007F:1F90 0100007F:D432 01 00000000:00000000 00:00000000 00000000     0        0 4711 1 0\n"
	for port, want := range map[uint16]string{0xD431: "", 0xD432: "4711", 0xD433: ""} {
		if got := inodeOf(table, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)); got != want {
			t.Errorf("port %d: %q, want %q", port, got, want)
		}
	}
}

func TestAMeterThatNeverBeganSawNothing(t *testing.T) {
	var m Meter
	if u := m.End(os.Getpid()); u != (Usage{}) {
		t.Errorf("%+v", u)
	}
	m.Begin()
	for begun := ownCPU(); ownCPU()-begun < 50*time.Millisecond; { // measurable work
	}
	if u := m.End(os.Getpid()); u.Server < 10*time.Millisecond {
		t.Errorf("used %v in 50 ms of work", u.Server)
	}
}
