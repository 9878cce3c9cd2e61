"""Times the all-reduce of torch.distributed's gloo between processes on this host, one core each.

    python docs/peers/gloo.py --nodes 2 --bytes 58800000 4096

The payload is that of BenchmarkAllReduce: float32 from N(0, s), with s drawn log-uniformly from 1e-6 to 1e-3 for each 256
values, other values in each process. Prints one line of JSON: the median milliseconds of each size, by process 0.
"""

import argparse
import json
import socket
import statistics
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def payload(values, rank):
    """Gradients as BenchmarkAllReduce draws them: [values]."""
    draw = torch.Generator().manual_seed(rank)
    blocks = -(-values // 256)
    scale = torch.pow(10.0, -6 + 3 * torch.rand(blocks, 1, generator=draw))
    return (torch.randn(blocks, 256, generator=draw) * scale).flatten()[:values].contiguous()


def node(rank, a, port, results):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=a.nodes)
    medians = {}
    for size in a.bytes:
        own = payload(size // 4, rank)
        work = torch.empty_like(own)
        expected = sum(payload(size // 4, r)[:64].double() for r in range(a.nodes))
        milliseconds = []
        for turn in range(a.warm + a.turns):
            work.copy_(own)
            dist.barrier()
            start = time.perf_counter()
            dist.all_reduce(work)
            if turn >= a.warm:
                milliseconds.append(1e3 * (time.perf_counter() - start))
        torch.testing.assert_close(work[:64].double(), expected, rtol=1e-4, atol=1e-9)
        medians[str(size)] = statistics.median(milliseconds)
    if rank == 0:
        results.put(medians)
    dist.barrier()
    dist.destroy_process_group()


def main():
    parser = argparse.ArgumentParser(description="time gloo's all-reduce")
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--bytes", type=int, nargs="+", default=[58_800_000, 4096])
    parser.add_argument("--warm", type=int, default=3)
    parser.add_argument("--turns", type=int, default=20)
    a = parser.parse_args()
    with socket.socket() as s:  # a free port
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    context = mp.get_context("spawn")
    results = context.Queue()
    nodes = [context.Process(target=node, args=(rank, a, port, results)) for rank in range(a.nodes)]
    for n in nodes:
        n.start()
    medians = results.get()
    for n in nodes:
        n.join()
    print(json.dumps({"nodes": a.nodes, "milliseconds": medians, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
