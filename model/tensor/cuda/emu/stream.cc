// Streams and the order in which what waits in them is run.
#include "driver.h"
#include <time.h>

namespace emu {

static uint64_t clock_;  // counts pieces of work

double now() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// step runs a lane's next piece, and first what that waits for.
static void step(Lane &l, bool keep) {
    Op op = keep ? l.ops[l.next] : std::move(l.ops.front());
    if (op.wait && !op.wait->done) finish(*op.wait);
    if (keep)
        l.next++;
    else
        l.ops.pop_front(), l.since = ++clock_;
    Context *c = l.context;
    if (op.run && !c->error) c->error = op.run();
    if (op.mark) op.mark->done = true, op.mark->time = now();
}
Result finish(Mark &m) {
    while (!m.done) step(*m.lane, m.graph != nullptr);
    return m.lane->context->error;
}
Result finish(Stream *s) {
    while (!s->lane.idle()) step(s->lane, false);
    return s->lane.context->error;
}
// The stream whose work came last goes first: nothing but an event says otherwise.
Result finish(Context *c) {
    for (;;) {
        Stream *last = c->null.lane.idle() ? nullptr : &c->null;
        for (Stream *s : c->streams)
            if (!s->lane.idle() && (!last || s->lane.since > last->lane.since)) last = s;
        if (!last) return c->error;
        step(last->lane, false);
    }
}
Result runGraph(Graph &g) {
    for (auto &m : g.marks) m->done = false;
    for (Lane &l : g.lanes) l.next = 0;
    while (!g.lanes[0].idle()) step(g.lanes[0], true);
    return g.lanes[0].context->error;
}

Stream *streamOf(void *handle) {
    Context *c = current();
    if (!c) return nullptr;
    if ((uintptr_t)handle <= 2) return &c->null;
    return (Stream *)handle;
}

static std::shared_ptr<Mark> append(Lane &l, Op op) {
    if (l.idle()) l.since = ++clock_;
    l.ops.push_back(std::move(op));
    return l.ops.back().mark;
}
static std::shared_ptr<Mark> mark(Lane &l, Graph *g) {
    auto m = std::make_shared<Mark>(Mark{&l, g, false, 0});
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
    if (!s) return INVALID_HANDLE;
    Context *c = s->lane.context;
    if (!c->streams.erase(s)) return INVALID_HANDLE;
    finish(s);
    delete s;
    return SUCCESS;
}
API cuStreamSynchronize(void *handle) {
    Guard g;
    Context *c;
    Result e = usable(c);
    Stream *s = streamOf(handle);
    if (e || (e = mayWait(s))) return e;
    return finish(s);
}
API cuStreamQuery(void *handle) {
    return cuStreamSynchronize(handle);
}
API cuStreamGetFlags(void *handle, unsigned *f) {
    Guard g;
    Stream *s = streamOf(handle);
    if (!s) return INVALID_CONTEXT;
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
    if (!s) return INVALID_CONTEXT;
    *c = s->lane.context;
    return SUCCESS;
}
API cuLaunchHostFunc(void *handle, void (*f)(void *), void *data) {
    Guard g;
    Stream *s = streamOf(handle);
    if (!s) return INVALID_CONTEXT;
    return enqueue(s, [=] { return f(data), SUCCESS; });
}

API cuEventCreate(Event **e, unsigned) {
    Guard g;
    Context *c;
    if (const Result r = usable(c)) return r;
    *e = new Event{};
    return SUCCESS;
}
API cuEventDestroy_v2(Event *e) {
    Guard g;
    delete e;
    return SUCCESS;
}
API cuEventRecord(Event *e, void *handle) {
    Guard g;
    Stream *s = streamOf(handle);
    if (!s) return INVALID_CONTEXT;
    if (s->lane.context->error) return s->lane.context->error;
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
    if (!s) return INVALID_CONTEXT;
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
API cuEventSynchronize(Event *e) {
    Guard g;
    if (!e->mark) return SUCCESS;
    if (e->mark->graph) return CAPTURED_EVENT;
    if (const Result r = mayWait()) return r;
    if (!e->mark->done) return finish(*e->mark);
    const Context *c = current();
    return c ? c->error : SUCCESS;
}
API cuEventQuery(Event *e) {
    return cuEventSynchronize(e);
}
API cuEventElapsedTime(float *ms, Event *a, Event *b) {
    Guard g;
    if (!a->mark || !b->mark || a->mark->graph || b->mark->graph) return INVALID_HANDLE;
    if (!a->mark->done || !b->mark->done) return NOT_READY;
    *ms = (float)(1e3 * (b->mark->time - a->mark->time));
    return SUCCESS;
}
API cuEventElapsedTime_v2(float *ms, Event *a, Event *b) {
    return cuEventElapsedTime(ms, a, b);
}
