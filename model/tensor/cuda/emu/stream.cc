// Streams and the order in which what waits in them is run.
#include "driver.h"
#include <stdlib.h>
#include <time.h>

namespace emu {

static uint64_t clock_;  // counts pieces of work

double now() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static Result advance(Mark &m);

// step runs a lane's next piece, and first what that waits for. It says whether it did: nothing gets on that waits for
// a kernel that never ends.
static bool step(Lane &l, bool keep) {
    Context *c = l.context;
    Op &op = l.ops[keep ? l.next : 0];
    if (c->hangs || (op.wait && !op.wait->done && advance(*op.wait) == HANGS)) return false;
    if (op.run && !c->error) {
        const Result r = op.run();
        if (r == HANGS) return c->hangs = true, false;
        c->error = r;
    }
    if (op.mark) op.mark->done = true, op.mark->time = now();
    if (keep)
        l.next++;
    else
        l.ops.pop_front(), l.since = ++clock_;
    return true;
}

// random is below n: with LIFT_EMU_SHUFFLE, which seeds it, not always 0.
static size_t random(size_t n) {
    static const char *const seed = getenv("LIFT_EMU_SHUFFLE");
    static const bool on = seed && *seed;
    static uint64_t state = on ? strtoull(seed, nullptr, 0) : 0;
    if (!on) return 0;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (size_t)((state >> 33) % n);
}
// stray runs pieces that nobody waits for, one time in two: a GPU may be ahead of those who wait for it.
static void stray() {
    while (random(2)) {
        std::vector<Lane *> busy;
        for (Context *c : all()) {
            if (!c->null.lane.idle()) busy.push_back(&c->null.lane);
            for (Stream *s : c->streams)
                if (!s->lane.idle()) busy.push_back(&s->lane);
        }
        if (busy.empty()) return;
        step(*busy[random(busy.size())], false);
    }
}

// advance runs what is needed until all of it has run, or gives HANGS.
static Result advance(Mark &m) {
    while (!m.done)
        if (!step(*m.lane, m.graph != nullptr)) return HANGS;
    return m.lane->context->error;
}
static Result advance(Stream *s) {
    for (stray(); !s->lane.idle(); stray())
        if (!step(s->lane, false)) return HANGS;
    return s->lane.context->error;
}
// The stream whose work came last goes first: nothing but an event says otherwise.
static Result advance(Context *c) {
    for (;;) {
        stray();
        Stream *last = c->null.lane.idle() ? nullptr : &c->null;
        for (Stream *s : c->streams)
            if (!s->lane.idle() && (!last || s->lane.since > last->lane.since)) last = s;
        if (!last) return c->error;
        if (!step(last->lane, false)) return HANGS;
    }
}
Result runGraph(Graph &g) {
    for (auto &m : g.marks) m->done = false;
    for (Lane &l : g.lanes) l.next = 0;
    while (!g.lanes[0].idle()) {
        Lane &l = g.lanes[random(g.lanes.size())];
        if (!l.idle() && !step(l, true)) return HANGS;
    }
    return g.lanes[0].context->error;
}

static Result orForever(Result r) {
    if (r == HANGS) Guard::forever();
    return r;
}
Result finish(Mark &m) {
    return orForever(advance(m));
}
Result finish(Stream *s) {
    return orForever(advance(s));
}
Result finish(Context *c) {
    return orForever(advance(c));
}

// answer is a query's, of work that is pending. A GPU gets on while it is asked again and again: the first answer is
// that it is not ready, and by the second it has done what it can.
template <class Work>
static Result answer(bool &asked, Work &&work) {
    asked = !asked;
    if (asked) return NOT_READY;
    const Result r = advance(work);
    return r == HANGS ? NOT_READY : r;
}

Stream *streamOf(void *handle) {
    Context *c = current();
    if (!c) return nullptr;
    if ((uintptr_t)handle <= 2) return &c->null;
    for (Context *o : all())
        if (o->streams.count((Stream *)handle)) return (Stream *)handle;
    fprintf(stderr, "cuemu: %p is no stream, or was destroyed before\n", handle);
    return nullptr;
}
static std::set<Event *> events;
static bool is(Event *e) {
    if (events.count(e)) return true;
    fprintf(stderr, "cuemu: %p is no event, or was destroyed before\n", (void *)e);
    return false;
}

static std::shared_ptr<Mark> append(Lane &l, Op op) {
    if (l.idle()) l.since = ++clock_;
    l.ops.push_back(std::move(op));
    return l.ops.back().mark;
}
static std::shared_ptr<Mark> mark(Lane &l, Graph *g) {
    auto m = std::make_shared<Mark>(Mark{&l, g, false, false, 0});
    if (g) g->marks.push_back(m);
    return append(l, {nullptr, nullptr, m});
}
static void wait(Lane &l, std::shared_ptr<Mark> m) {
    if (!m->done || m->graph) append(l, {nullptr, m, nullptr});
}

// The null stream and the blocking streams of a context wait for each other.
static void joinNull(Stream *s) {
    Context *c = s->lane.context;
    if (s != &c->null) {
        if (s->blocking && !c->null.lane.idle()) wait(s->lane, mark(c->null.lane, nullptr));
        return;
    }
    for (Stream *o : c->streams)
        if (o->blocking && !o->lane.idle()) wait(s->lane, mark(o->lane, nullptr));
}

Result enqueue(Stream *s, std::function<Result()> run) {
    Context *c = s->lane.context;
    if (c->error) return c->error;
    if (s->capture) {
        if (!s->capture->valid) return CAPTURE_INVALIDATED;
        append(*s->captured, {std::move(run), nullptr, nullptr});
        return SUCCESS;
    }
    if (s == &c->null)
        for (Stream *o : c->streams)
            if (o->blocking && o->capture) {
                o->capture->valid = false;
                return CAPTURE_IMPLICIT;
            }
    joinNull(s);
    append(s->lane, {std::move(run), nullptr, nullptr});
    return SUCCESS;
}

}  // namespace emu

using namespace emu;

API cuStreamCreate(Stream **s, unsigned flags) {
    Guard g;
    Context *c;
    if (const Result e = usable(c)) return e;
    if (flags > 1) return INVALID_VALUE;
    *s = new Stream{};
    (*s)->lane.context = c;
    (*s)->blocking = !(flags & 1);
    c->streams.insert(*s);
    return SUCCESS;
}
API cuStreamCreateWithPriority(Stream **s, unsigned flags, int) {
    return cuStreamCreate(s, flags);
}
API cuStreamDestroy_v2(Stream *s) {
    Guard g;
    if (!s || streamOf(s) != s) return INVALID_HANDLE;
    finish(s);
    s->lane.context->streams.erase(s);
    delete s;
    return SUCCESS;
}
// waited gives the stream of a handle, if the host may wait for it now.
static Result waited(void *handle, Stream *&s) {
    Context *c;
    Result e = usable(c);
    if (e) return e;
    s = streamOf(handle);
    return s ? mayWait(s) : INVALID_HANDLE;
}
API cuStreamSynchronize(void *handle) {
    Guard g;
    Stream *s;
    const Result e = waited(handle, s);
    return e ? e : finish(s);
}
API cuStreamQuery(void *handle) {
    Guard g;
    Stream *s;
    const Result e = waited(handle, s);
    if (e) return e;
    return s->lane.idle() ? s->lane.context->error : answer(s->asked, s);
}
API cuStreamGetFlags(void *handle, unsigned *f) {
    Guard g;
    Stream *s = streamOf(handle);
    if (!s) return INVALID_HANDLE;
    *f = !s->blocking;
    return SUCCESS;
}
API cuStreamGetPriority(void *, int *p) {
    *p = 0;
    return SUCCESS;
}
API cuStreamGetCtx(void *handle, Context **c) {
    Guard g;
    Stream *s = streamOf(handle);
    if (!s) return INVALID_HANDLE;
    *c = s->lane.context;
    return SUCCESS;
}
API cuLaunchHostFunc(void *handle, void (*f)(void *), void *data) {
    Guard g;
    Stream *s = streamOf(handle);
    if (!s) return INVALID_HANDLE;
    return enqueue(s, [=] { return f(data), SUCCESS; });
}

API cuEventCreate(Event **e, unsigned) {
    Guard g;
    Context *c;
    if (const Result r = usable(c)) return r;
    *e = new Event{c, nullptr};
    events.insert(*e);
    return SUCCESS;
}
API cuEventDestroy_v2(Event *e) {
    Guard g;
    if (!is(e)) return INVALID_HANDLE;
    events.erase(e);
    delete e;
    return SUCCESS;
}
API cuEventRecord(Event *e, void *handle) {
    Guard g;
    Stream *s = streamOf(handle);
    if (!s || !is(e)) return INVALID_HANDLE;
    if (s->lane.context->error) return s->lane.context->error;
    if (e->context != s->lane.context) {
        fprintf(stderr, "cuemu: cuEventRecord: the event is of GPU %d, the stream of GPU %d\n",
                e->context->device->ordinal, s->lane.context->device->ordinal);
        return INVALID_HANDLE;
    }
    if (s->capture && !s->capture->valid) return CAPTURE_INVALIDATED;
    if (!s->capture) joinNull(s);
    e->mark = mark(s->capture ? *s->captured : s->lane, s->capture);
    return SUCCESS;
}
API cuEventRecordWithFlags(Event *e, void *handle, unsigned) {
    return cuEventRecord(e, handle);
}
API cuStreamWaitEvent(void *handle, Event *e, unsigned) {
    Guard g;
    Stream *s = streamOf(handle);
    if (!s || !is(e)) return INVALID_HANDLE;
    if (s->lane.context->error) return s->lane.context->error;
    if (!e->mark) return SUCCESS;
    Graph *graph = e->mark->graph;
    if (s->capture && s->capture != graph) {
        s->capture->valid = false;
        return CAPTURE_ISOLATION;
    }
    if (graph && !graph->active) return CAPTURED_EVENT;
    if (graph && !s->capture) {  // the stream joins the capture
        graph->lanes.push_back(Lane{s->lane.context, {}});
        s->capture = graph, s->captured = &graph->lanes.back();
        graph->streams.push_back(s);
    }
    if (!s->capture) joinNull(s);
    wait(s->capture ? *s->captured : s->lane, e->mark);
    return SUCCESS;
}
// passed is what there is to say of an event without waiting; NOT_READY: it is to be waited for.
static Result passed(Event *e) {
    if (!is(e)) return INVALID_HANDLE;
    if (!e->mark) return SUCCESS;
    if (e->mark->graph) return CAPTURED_EVENT;
    if (const Result r = mayWait()) return r;
    if (!e->mark->done) return NOT_READY;
    const Context *c = current();
    return c ? c->error : SUCCESS;
}
API cuEventSynchronize(Event *e) {
    Guard g;
    const Result r = passed(e);
    return r == NOT_READY ? finish(*e->mark) : r;
}
API cuEventQuery(Event *e) {
    Guard g;
    const Result r = passed(e);
    return r == NOT_READY ? answer(e->mark->asked, *e->mark) : r;
}
API cuEventElapsedTime(float *ms, Event *a, Event *b) {
    Guard g;
    if (!is(a) || !is(b) || !a->mark || !b->mark || a->mark->graph || b->mark->graph) return INVALID_HANDLE;
    if (!a->mark->done || !b->mark->done) return NOT_READY;
    *ms = (float)(1e3 * (b->mark->time - a->mark->time));
    return SUCCESS;
}
API cuEventElapsedTime_v2(float *ms, Event *a, Event *b) {
    return cuEventElapsedTime(ms, a, b);
}
