package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// Processes that accept from one socket compete for each new connection, so an uneven run measures
// luck. This number of tries per connection is enough for two equal processes.
const triesEach = 40

// spread opens connections until each process has its share. A connection to a process that has
// enough is closed. Uneven reports that it gave up.
func spread(ctx context.Context, dial dialer, host string, o Options) (conns []link, uneven bool, err error) {
	share := (o.Connections + o.Owners - 1) / o.Owners
	have := map[int]int{}
	defer func() {
		if err != nil {
			for _, c := range conns {
				c.close()
			}
		}
	}()
	for try := 0; len(conns) < o.Connections; try++ {
		c, err := dial(ctx, host)
		if err != nil {
			return conns, false, fmt.Errorf("connect to %s: %w", host, err)
		}
		owner, err := o.ownerOf(ctx, c)
		if err != nil {
			c.close()
			return conns, false, err
		}
		if have[owner] >= share && try < triesEach*o.Connections {
			c.close()
			continue
		}
		uneven = uneven || have[owner] >= share
		have[owner]++
		conns = append(conns, c)
	}
	return conns, uneven, nil
}

// acceptPatience is the time limit for a server to accept.
const acceptPatience = 5 * time.Second

func (o *Options) ownerOf(ctx context.Context, c link) (int, error) {
	local := c.local().(*net.TCPAddr).AddrPort() // dial opens nothing else
	ctx, cancel := context.WithTimeout(ctx, acceptPatience)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		owner, err := o.Owner(local)
		if owner != 0 || err != nil {
			return owner, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, errors.Join(fmt.Errorf("no process of the server accepted the connection from %v", local), ctx.Err())
		}
	}
}
