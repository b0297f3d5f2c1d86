package remote_test

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"

	"clearmlserving/inference/engine/remote"
)

func TestAServerThatIsAwayForLongIsStillTriedOften(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var attempts atomic.Int32
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			attempts.Add(1)
			_ = c.Close()
		}
	})
	defer accepting.Wait()
	defer l.Close() //nolint:errcheck // it ends the attempts
	conn, err := grpc.NewClient("passthrough:///"+l.Addr().String(), append(remote.GRPC(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // nothing is sent any more
	// With the pauses of the library the tenth attempt comes after two minutes.
	for end := time.Now().Add(time.Minute); attempts.Load() < 10; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d attempts in a minute", attempts.Load())
		}
		_ = conn.Invoke(t.Context(), "/service/Probe", &emptypb.Empty{}, &emptypb.Empty{}) // there is no server
	}
}
