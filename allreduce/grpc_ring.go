package allreduce

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// laneHello opens a lane; it travels as metadata.
type laneHello struct {
	hello
	from string // name of the member
	lane int
}

const (
	keyRun        = "lift-run"
	keyGeneration = "lift-generation"
	keyForm       = "lift-form"
	keyFrom       = "lift-from"
	keyLane       = "lift-lane"
)

func (h *laneHello) metadata() metadata.MD {
	return metadata.Pairs(keyRun, h.run, keyGeneration, strconv.FormatUint(h.generation, 10), keyForm, h.form,
		keyFrom, h.from, keyLane, strconv.Itoa(h.lane))
}

func readHello(ctx context.Context) (laneHello, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	get := func(key string) string {
		if v := md.Get(key); len(v) == 1 {
			return v[0]
		}
		return ""
	}
	id, err := strconv.ParseUint(get(keyGeneration), 10, 64)
	if err != nil {
		return laneHello{}, fmt.Errorf("%w: hello: generation: %w", ErrMalformed, err)
	}
	lane, err := strconv.Atoi(get(keyLane))
	if err != nil {
		return laneHello{}, fmt.Errorf("%w: hello: lane: %w", ErrMalformed, err)
	}
	return laneHello{hello{get(keyRun), id, get(keyForm)}, get(keyFrom), lane}, nil
}

// grpcRing is a member's two ends over gRPC.
type grpcRing struct {
	gen  Generation
	form string
	out  []*outLane
	in   []*inLane
	wg   sync.WaitGroup // the goroutines that watch the lanes out

	leaving chan struct{} // closed when this member starts to leave in good order

	mu    sync.Mutex
	err   error
	ended chan struct{} // closed with err set
}

// outLane leads to the next member.
type outLane struct {
	conn   *grpc.ClientConn
	stream grpc.ClientStream
	cancel context.CancelFunc
	over   chan struct{} // closed when the next member has ended it, err set
	err    error

	mu   sync.Mutex // of sending
	left bool       // the next member will read nothing more
}

// inLane comes from the previous member. Its stream belongs to a handler of the server.
type inLane struct {
	stream  grpc.ServerStream
	arrived chan struct{} // closed when stream is set
	eof     chan struct{} // closed when the previous member has said all
	eofOnce sync.Once
}

func newGRPCRing(gen Generation, lanes int, form string) *grpcRing {
	r := &grpcRing{gen: gen, form: form, leaving: make(chan struct{}), ended: make(chan struct{})}
	for range lanes {
		r.in = append(r.in, &inLane{arrived: make(chan struct{}), eof: make(chan struct{})})
	}
	return r
}

func (r *grpcRing) hello() hello { return hello{r.gen.Run, r.gen.ID, r.form} }

// connect opens the lanes to the next member and waits for those of the previous one.
func (r *grpcRing) connect(ctx context.Context, dial []grpc.DialOption) error {
	for i := range r.in {
		if err := r.openLane(ctx, i, dial); err != nil {
			return err
		}
	}
	for i, in := range r.in {
		select {
		case <-in.arrived:
		case <-r.ended:
			return r.cause()
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s to open lane %d: %w", r.gen.prev().Name, i, context.Cause(ctx))
		}
	}
	return nil
}

// openLane returns when the next member has accepted lane i.
func (r *grpcRing) openLane(ctx context.Context, i int, dial []grpc.DialOption) error {
	next := r.gen.next()
	wrap := func(err error) error {
		if s, ok := status.FromError(err); ok {
			err = errors.New(s.Message())
		}
		return fmt.Errorf("connecting to %s at %s: %w", next.Name, next.Addr, err)
	}
	conn, err := grpc.NewClient("passthrough:///"+next.Addr, dial...)
	if err != nil {
		return wrap(err)
	}
	h := laneHello{r.hello(), r.gen.Members[r.gen.Self].Name, i}
	streamCtx, cancel := context.WithCancel(metadata.NewOutgoingContext(context.Background(), h.metadata()))
	o := &outLane{conn: conn, cancel: cancel, over: make(chan struct{})}
	stop := context.AfterFunc(ctx, cancel) // ctx bounds the opening only
	accepted := func() error {
		o.stream, err = conn.NewStream(streamCtx, &laneDesc, lanePath, grpc.ForceCodecV2(ringCodec{}), grpc.WaitForReady(true))
		if err != nil {
			return err
		}
		_, err = o.stream.Header()
		return err
	}
	err = accepted()
	if !stop() && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		err = r.watch(o)
	}
	if err != nil {
		cancel()
		conn.Close()
		return wrap(err)
	}
	return nil
}

// watch waits for the end of a lane out, which only the next member's leaving or failing brings.
func (r *grpcRing) watch(o *outLane) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	r.out = append(r.out, o)
	r.wg.Go(func() {
		o.err = o.read()
		close(o.over)
		if o.err != errLeft {
			r.end(fmt.Errorf("%s: %w", r.gen.next().Name, o.err))
		}
	})
	return nil
}

// read takes what the next member sends back until the stream ends, and gives the reason: errLeft if it said bye, or
// ended the stream without an error. What follows a bye, like a connection cut off, is of no interest.
func (o *outLane) read() error {
	for {
		var m message
		err := o.stream.RecvMsg(&m)
		switch {
		case err == nil && m.tag.Kind == kindBye && m.payload.Len() == 0:
			o.closeSend()
		case err == nil:
			m.payload.Free()
			o.cancel()
			return fmt.Errorf("%w: a chunk came backwards", ErrMalformed)
		case err == io.EOF || o.hasLeft():
			return errLeft
		default:
			return errors.New(status.Convert(err).Message())
		}
	}
}

// closeSend tells the next member that nothing more will come.
func (o *outLane) closeSend() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.left {
		o.left = true
		o.stream.CloseSend()
	}
}

func (o *outLane) hasLeft() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.left
}

// send gives io.EOF if the stream is over.
func (o *outLane) send(m *message) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.left {
		m.payload.Free()
		return errLeft
	}
	return o.stream.SendMsg(m)
}

// accept lends the ring a stream of the previous member.
func (r *grpcRing) accept(h laneHello, s grpc.ServerStream) (*inLane, error) {
	if err := compareHello(r.hello(), h.hello, h.from); err != nil {
		return nil, err
	}
	if prev := r.gen.prev().Name; h.from != prev {
		return nil, fmt.Errorf("%s is not before this node in generation %d; %s is", h.from, r.gen.ID, prev)
	}
	if h.lane < 0 || h.lane >= len(r.in) {
		return nil, fmt.Errorf("%w: lane %d of %d", ErrMalformed, h.lane, len(r.in))
	}
	in := r.in[h.lane]
	r.mu.Lock()
	defer r.mu.Unlock()
	if in.stream != nil {
		return nil, fmt.Errorf("%w: %s opened lane %d twice", ErrMalformed, h.from, h.lane)
	}
	in.stream = s
	close(in.arrived)
	return in, nil
}

// hold keeps the stream of a lane in open, for its handler, until both ends are done with it.
func (r *grpcRing) hold(in *inLane, s grpc.ServerStream) error {
	select {
	case <-in.eof:
		return nil
	case <-r.leaving:
		if err := s.SendMsg(&message{tag: Tag{Kind: kindBye}}); err != nil {
			return err
		}
	case <-r.ended:
	}
	select {
	case <-in.eof:
		return nil
	case <-r.ended:
	}
	if err := r.cause(); !errors.Is(err, errLeft) {
		return status.Errorf(codes.Aborted, "%s: %v", r.gen.Members[r.gen.Self].Name, err)
	}
	return nil
}

// Send is part of Ring.
func (r *grpcRing) Send(lane int, tag Tag, payload mem.BufferSlice) error {
	o := r.out[lane]
	err := o.send(&message{tag, payload})
	if err == nil {
		return nil
	}
	if err == io.EOF { // the stream is over; why, its watcher knows
		<-o.over
		err = o.err
	}
	if cause := r.cause(); cause != nil {
		return cause
	}
	return fmt.Errorf("%s: %w", r.gen.next().Name, err)
}

// Recv is part of Ring.
func (r *grpcRing) Recv(lane int) (Tag, mem.BufferSlice, error) {
	in := r.in[lane]
	select {
	case <-in.arrived:
	case <-r.ended:
		return Tag{}, nil, r.cause()
	}
	var m message
	err := in.stream.RecvMsg(&m)
	if err == nil {
		return m.tag, m.payload, nil
	}
	if cause := r.cause(); cause != nil {
		return Tag{}, nil, cause
	}
	if err == io.EOF {
		in.eofOnce.Do(func() { close(in.eof) })
		return Tag{}, nil, io.EOF
	}
	reason := status.Convert(err).Message()
	if status.Code(err) == codes.Canceled { // what a member that fails does to its lanes out
		reason = "it broke the ring, or is gone"
	}
	err = fmt.Errorf("%s ended lane %d: %s", r.gen.prev().Name, lane, reason)
	r.end(err)
	return Tag{}, nil, err
}

func (r *grpcRing) cause() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// end makes everything pending return err, unless something else did before.
func (r *grpcRing) end(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return
	}
	r.err = err
	close(r.ended)
	for _, o := range r.out {
		o.cancel()
	}
}

// Close is part of Ring. In good order it tells both neighbours, and waits until both have heard it: the server's
// connections may be cut as soon as it returns.
func (r *grpcRing) Close(ctx context.Context, reason error) error {
	r.mu.Lock()
	out, broken := r.out, r.err != nil
	r.mu.Unlock()
	if reason == nil && !broken {
		close(r.leaving)
		for _, o := range out {
			o.closeSend()
		}
		for _, o := range out {
			r.await(ctx, o.over)
		}
		for _, in := range r.in {
			r.await(ctx, in.eof)
		}
		reason = errLeft
	}
	r.end(reason)
	for _, o := range out {
		o.cancel()
		o.conn.Close()
	}
	r.wg.Wait()
	return nil
}

func (r *grpcRing) await(ctx context.Context, heard <-chan struct{}) {
	select {
	case <-heard:
	case <-r.ended:
	case <-ctx.Done():
	}
}
