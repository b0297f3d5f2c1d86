package feedback

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"clearmlserving/serving"
)

// Truths whose predictions this instance does not have are offered to the other instances of the
// service: one of them may have answered the request. An instance joins those that it knows, and this
// one forgets them. Requests between instances are signed by the keys in their records.

// Peer is another instance of the service, as recorded on the control plane.
type Peer struct {
	URL string // of its front
	Key string // the public key of its identity
}

// Doer sends requests to other instances.
type Doer interface {
	Do(r *http.Request) (*http.Response, error)
}

const (
	offerEvery   = 5 * time.Second
	offerLength  = 1000 // truths of one request
	firstRetry   = 2 * time.Second
	lastRetry    = time.Hour
	peerTimeout  = 10 * time.Second
	peersMaxAge  = 10 * time.Second
	maxPeerSkew  = 5 * time.Minute
	maxPeerReply = 1 << 20
)

// peers are the other instances, as read last.
type peers struct {
	mu   sync.Mutex
	list []Peer
	read time.Time
}

// get returns the other instances; they are read again after some time.
func (s *Store) getPeers(ctx context.Context) ([]Peer, error) {
	if s.o.Peers == nil {
		return nil, nil
	}
	p := &s.peers
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.read) < peersMaxAge {
		return p.list, nil
	}
	ctx, cancel := context.WithTimeout(ctx, peerTimeout)
	defer cancel()
	list, err := s.o.Peers(ctx)
	p.read = time.Now() // also after an error, because unauthenticated clients can cause this
	if err != nil {
		return p.list, err
	}
	own := s.o.Identity.Public()
	p.list = nil
	for _, peer := range list {
		if peer.Key != "" && peer.Key != own {
			p.list = append(p.list, peer)
		}
	}
	return p.list, nil
}

// offered is a truth for another instance.
type offered struct {
	Key   string  `json:"key"`
	Truth []Truth `json:"truth"`
}

// verdict is what another instance made of an offered truth.
type verdict string

const verdictUnknown verdict = "unknown" // it has no such prediction; others are names of counters

// offer offers pending truths to the other instances until ctx ends.
func (s *Store) offer(ctx context.Context) {
	tick := time.NewTicker(offerEvery)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-s.offered:
		}
		for ctx.Err() == nil {
			more, err := s.offerOnce(ctx)
			switch {
			case err != nil && !failing && ctx.Err() == nil:
				s.o.Logger.Warn("feedback cannot be offered to other instances", "err", err)
			case err != nil:
				s.o.Logger.Debug("feedback cannot be offered to other instances", "err", err)
			}
			if more || err != nil { // else nothing was due
				failing = err != nil
			}
			if !more || err != nil {
				break
			}
		}
	}
}

// offerOnce offers the truths that are due, of one endpoint. It reports whether there may be more.
func (s *Store) offerOnce(ctx context.Context) (more bool, err error) {
	endpoint, due, err := s.due()
	if err != nil || len(due) == 0 {
		return false, err
	}
	list, err := s.getPeers(ctx)
	verdicts := make([]verdict, len(due))
	for i := range verdicts {
		verdicts[i] = verdictUnknown
	}
	left := due
	for _, peer := range list {
		if len(left) == 0 {
			break
		}
		answer, failed := s.offerTo(ctx, peer, endpoint, left)
		if failed != nil {
			err = errors.Join(err, failed)
			continue
		}
		byKey := make(map[string]verdict, len(left))
		for i, one := range left {
			byKey[one.Key] = answer[i]
		}
		left = nil
		for i, one := range due {
			if v, ok := byKey[one.Key]; ok && verdicts[i] == verdictUnknown {
				verdicts[i] = v
			}
			if verdicts[i] == verdictUnknown {
				left = append(left, one)
			}
		}
	}
	return true, errors.Join(err, s.settle(endpoint, due, verdicts))
}

// due returns pending truths of one endpoint whose next offer is due.
func (s *Store) due() (endpoint serving.EndpointURL, due []offered, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db.Load() == nil {
		return "", nil, nil
	}
	err = s.write(func(tx *tx) error {
		return tx.each(`SELECT endpoint, key, truth FROM pending
WHERE next <= ?1 AND endpoint = (SELECT endpoint FROM pending WHERE next <= ?1 ORDER BY next LIMIT 1) ORDER BY next LIMIT ?2`, func(rows *sql.Rows) error {
			var one offered
			var text []byte
			if err := rows.Scan(&endpoint, &one.Key, &text); err != nil {
				return err
			}
			due = append(due, one)
			return json.Unmarshal(text, &due[len(due)-1].Truth)
		}, tx.now.UnixMilli(), offerLength)
	})
	return endpoint, due, err
}

// settle removes the truths that other instances know, and plans the next offer of the others.
func (s *Store) settle(endpoint serving.EndpointURL, due []offered, verdicts []verdict) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.write(func(tx *tx) error {
		for i, one := range due {
			if verdicts[i] == verdictUnknown {
				_, err := tx.exec("UPDATE pending SET tries = tries + 1, next = ?1 + MIN(?2 << MIN(tries, 20), ?3) WHERE key = ?4 AND endpoint = ?5",
					tx.now.UnixMilli(), firstRetry.Milliseconds(), lastRetry.Milliseconds(), one.Key, string(endpoint))
				if err != nil {
					return err
				}
				continue
			}
			before := tx.waiting[endpoint]
			if err := tx.unqueue(one.Key, endpoint); err != nil {
				return err
			}
			if tx.waiting[endpoint] == before {
				continue // its prediction has come meanwhile
			}
			name := countElsewhere
			if verdicts[i] != countJoined {
				name = string(verdicts[i])
			}
			tx.count(endpoint, name, 1)
		}
		return nil
	})
}

// offerTo sends truths to another instance, after it has proved that the address is its own.
func (s *Store) offerTo(ctx context.Context, peer Peer, endpoint serving.EndpointURL, due []offered) ([]verdict, error) {
	ctx, cancel := context.WithTimeout(ctx, peerTimeout)
	defer cancel()
	challenge := rand.Text()
	var proof serving.Proof
	base := strings.TrimRight(peer.URL, "/")
	if err := s.ask(ctx, http.MethodGet, base+serving.IdentityPath+"?challenge="+challenge, nil, &proof); err != nil {
		return nil, err
	}
	if err := proof.Verify(peer.Key, challenge); err != nil {
		return nil, fmt.Errorf("instance at %s: %w", peer.URL, err)
	}
	body, err := json.Marshal(due)
	if err != nil {
		return nil, err
	}
	var verdicts []verdict
	path := "/feedback/" + (&url.URL{Path: string(endpoint)}).EscapedPath()
	if err := s.ask(ctx, http.MethodPost, base+path, body, &verdicts); err != nil {
		return nil, err
	}
	if len(verdicts) != len(due) {
		return nil, fmt.Errorf("instance at %s answers about %d of %d truths", peer.URL, len(verdicts), len(due))
	}
	for _, v := range verdicts {
		switch v {
		case verdictUnknown, countJoined, countDuplicate, countMismatch:
		default:
			return nil, fmt.Errorf("instance at %s answers %q", peer.URL, v)
		}
	}
	return verdicts, nil
}

func (s *Store) ask(ctx context.Context, method, address string, body []byte, into any) error {
	r, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set(serving.PeerHeader, s.sign(body))
	}
	resp, err := s.o.Client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxPeerReply))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s answers %s: %.200s", method, address, resp.Status, text)
	}
	return json.Unmarshal(text, into)
}

// sign makes the header of a request to another instance: the public key, the time, the digest of the
// body, and the signature of these.
func (s *Store) sign(body []byte) string {
	digest := sha256.Sum256(body)
	head := fmt.Sprintf("%s %d %s", s.o.Identity.Public(), s.o.now().Unix(), hex.EncodeToString(digest[:]))
	return head + " " + s.o.Identity.Sign("feedback "+head)
}

// Verify reports whether a header was signed by another instance of the service.
func (s *Store) Verify(header string) error {
	i := strings.LastIndexByte(header, ' ')
	fields := strings.Fields(header)
	if i < 0 || len(fields) != 4 {
		return errors.New("it has not the form of an instance's header")
	}
	at, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return errors.New("its time is not a number")
	}
	if skew := s.o.now().Sub(time.Unix(at, 0)).Abs(); skew > maxPeerSkew {
		return fmt.Errorf("its time differs by %s from this machine's, more than %s: set the clocks of both machines", skew.Round(time.Second), maxPeerSkew)
	}
	if !serving.Signed(fields[0], "feedback "+header[:i], fields[3]) {
		return errors.New("its signature is wrong")
	}
	list, err := s.getPeers(context.Background())
	for _, peer := range list {
		if peer.Key == fields[0] {
			return nil
		}
	}
	if err != nil {
		s.o.Logger.Debug("instances not read", "err", err)
	}
	return errors.New("no instance of this service has this key")
}

// TakeOver joins truths that another instance has no predictions of. header has been verified.
func (s *Store) TakeOver(header string, endpoint serving.EndpointURL, body []byte) (status int, answer []byte) {
	fields := strings.Fields(header)
	digest := sha256.Sum256(body)
	if len(fields) != 4 || fields[2] != hex.EncodeToString(digest[:]) {
		return http.StatusForbidden, serving.Detail("The body is not the signed one")
	}
	var items []offered
	if err := json.Unmarshal(body, &items); err != nil || len(items) > maxItems {
		return http.StatusUnprocessableEntity, serving.Detail("The body is not a list of truths")
	}
	verdicts := make([]verdict, len(items))
	err := s.takeOver(endpoint, items, verdicts)
	if err != nil {
		return refusal(err)
	}
	text, err := json.Marshal(verdicts)
	if err != nil {
		return http.StatusInternalServerError, serving.Detail(err.Error())
	}
	return http.StatusOK, text
}

func (s *Store) takeOver(endpoint serving.EndpointURL, items []offered, verdicts []verdict) error {
	for i := range verdicts {
		verdicts[i] = verdictUnknown
	}
	f := s.table.Load().about(endpoint)
	if f == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keepWaiting(nil) // they come first
	return s.write(func(tx *tx) error {
		for i, one := range items {
			p, err := tx.find(endpoint, one.Key)
			switch {
			case err != nil:
				return err
			case p == nil:
			case p.joined:
				verdicts[i] = countDuplicate
			case len(one.Truth) == 0 || mismatch(p.rows, one.Truth) != "":
				verdicts[i] = countMismatch
			default:
				if err := tx.join(*p, one.Truth, f); err != nil {
					return err
				}
				tx.count(endpoint, countJoined, 1)
				verdicts[i] = countJoined
			}
		}
		return nil
	})
}
