// Graphs: work captured from streams instead of run. A graph keeps each stream's work as a lane and runs it as streams
// are run: the first lane in order, the others as far as its waits ask for.
#include "driver.h"

namespace emu {

// A graph as the caller holds it: captured, or made ready to launch.
struct Handle {
    std::shared_ptr<Graph> graph;
};
static std::set<std::shared_ptr<Graph>> recording;

// What events that were last recorded in the graph are left with: none may wait for them.
static struct Gone : Graph {
    Gone() { active = false; }
} gone;
Graph::~Graph() {
    for (auto &m : marks) m->graph = &gone, m->lane = nullptr;
}

Result mayWait(Stream *s) {
    Result e = SUCCESS;
    for (const auto &g : recording) {
        const bool forbids =
            (s && s->capture == g.get()) || g->mode == 0 || (g->mode == 1 && g->thread == std::this_thread::get_id());
        if (forbids) g->valid = false, e = CAPTURE_UNSUPPORTED;
    }
    return e;
}

// joined reports whether the end of the first lane comes after all work of the others.
static bool joined(Graph &g) {
    std::map<const Lane *, size_t> reached;
    std::function<void(const Lane *, size_t)> walk = [&](const Lane *l, size_t to) {
        while (reached[l] < to) {
            const Op &op = l->ops[reached[l]++];
            if (!op.wait) continue;
            size_t i = 0;
            while (op.wait->lane->ops[i].mark != op.wait) i++;
            walk(op.wait->lane, i + 1);
        }
    };
    walk(&g.lanes[0], g.lanes[0].ops.size());
    for (const Lane &l : g.lanes)
        for (size_t i = reached[&l]; i < l.ops.size(); i++)
            if (l.ops[i].run) return false;
    return true;
}

}  // namespace emu

using namespace emu;

API cuStreamBeginCapture_v2(void *handle, int mode) {
    Guard g;
    Context *c;
    if (const Result e = usable(c)) return e;
    Stream *s = streamOf(handle);
    if (!s) return INVALID_HANDLE;
    if (s == &c->null) return CAPTURE_UNSUPPORTED;
    if (s->capture || mode < 0 || mode > 2) return INVALID_VALUE;
    auto graph = std::make_shared<Graph>();
    graph->lanes.push_back(Lane{c, {}});
    graph->streams.push_back(s);
    graph->mode = mode;
    graph->thread = std::this_thread::get_id();
    s->capture = graph.get();
    s->captured = &graph->lanes[0];
    recording.insert(graph);
    return SUCCESS;
}
API cuStreamEndCapture(void *handle, Handle **out) {
    Guard g;
    Stream *s = streamOf(handle);
    if (!s) return INVALID_HANDLE;
    *out = nullptr;
    if (!s->capture) return INVALID_VALUE;
    if (s->captured != &s->capture->lanes[0]) return CAPTURE_UNMATCHED;
    std::shared_ptr<Graph> graph;
    for (const auto &r : recording)
        if (r.get() == s->capture) graph = r;
    recording.erase(graph);
    graph->active = false;
    for (Stream *o : graph->streams) o->capture = nullptr, o->captured = nullptr;
    graph->streams.clear();
    if (!graph->valid) return CAPTURE_INVALIDATED;
    if (!joined(*graph)) return CAPTURE_UNJOINED;
    *out = new Handle{graph};
    return SUCCESS;
}
API cuStreamIsCapturing(void *handle, int *status) {
    Guard g;
    Stream *s = streamOf(handle);
    if (!s) return INVALID_HANDLE;
    *status = !s->capture ? 0 : s->capture->valid ? 1 : 2;
    return SUCCESS;
}
API cuStreamGetCaptureInfo_v2(void *handle, int *status, uint64_t *id, void **graph, const void ***dependencies,
                              size_t *n) {
    Guard g;
    Stream *s = streamOf(handle);
    if (!s) return INVALID_HANDLE;
    *status = !s->capture ? 0 : s->capture->valid ? 1 : 2;
    if (id) *id = (uint64_t)(uintptr_t)s->capture;
    if (graph) *graph = nullptr;
    if (dependencies) *dependencies = nullptr;
    if (n) *n = 0;
    return SUCCESS;
}
API cuThreadExchangeStreamCaptureMode(int *mode) {
    *mode = 0;
    return SUCCESS;
}

API cuGraphInstantiateWithFlags(Handle **exec, Handle *graph, uint64_t) {
    Guard g;
    if (!graph) return INVALID_VALUE;
    *exec = new Handle{graph->graph};
    return SUCCESS;
}
API cuGraphInstantiate_v2(Handle **exec, Handle *graph, void *, char *, size_t) {
    return cuGraphInstantiateWithFlags(exec, graph, 0);
}
API cuGraphUpload(Handle *, void *) {
    return SUCCESS;
}
API cuGraphLaunch(Handle *exec, void *handle) {
    Guard g;
    Stream *s = streamOf(handle);
    if (!s) return INVALID_HANDLE;
    if (!exec) return INVALID_VALUE;
    return enqueue(s, [graph = exec->graph] { return runGraph(*graph); });
}
API cuGraphGetNodes(Handle *graph, void **nodes, size_t *n) {
    Guard g;
    if (nodes) return NOT_SUPPORTED;
    *n = 0;
    for (const Lane &l : graph->graph->lanes)
        for (const Op &op : l.ops) *n += op.run != nullptr;
    return SUCCESS;
}
API cuGraphExecDestroy(Handle *exec) {
    Guard g;
    delete exec;
    return SUCCESS;
}
API cuGraphDestroy(Handle *graph) {
    Guard g;
    delete graph;
    return SUCCESS;
}
