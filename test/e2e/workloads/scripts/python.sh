#!/bin/bash
# Processes, shared memory, sockets, signals and time.
python3 - <<'END'
import array, mmap, multiprocessing as mp, os, select, signal, socket, tempfile, threading, time
def work(n): return n * n
if __name__ == "__main__":
    with mp.Pool(3) as pool: print(sum(pool.map(work, range(100))))
    from multiprocessing import shared_memory
    m = shared_memory.SharedMemory(create=True, size=1 << 20); m.buf[0] = 7
    pid = os.fork()
    if pid == 0: n = shared_memory.SharedMemory(m.name); n.buf[1] = n.buf[0] + 1; os._exit(0)
    os.waitpid(pid, 0); print(m.buf[1]); m.close(); m.unlink()
    a, b = socket.socketpair(); r, w = os.pipe()
    socket.send_fds(a, [b"x"], [w]); _, fds, _, _ = socket.recv_fds(b, 10, 4); os.write(fds[0], b"passed"); print(os.read(r, 10))
    for path in "/data/m", "/root/m":
        with open(path, "wb+") as f:
            f.truncate(8192); v = mmap.mmap(f.fileno(), 8192)
            if os.fork() == 0: v[5000] = 65; os._exit(0)
            os.wait(); print(v[5000], open(path, "rb").read()[5000]); v.flush()
    s = socket.socket(socket.AF_UNIX); s.bind("/data/sock"); s.listen(); c = socket.socket(socket.AF_UNIX); c.connect("/data/sock"); print(s.accept() is not None)
    with tempfile.NamedTemporaryFile(dir="/data") as f: print(os.path.exists(f.name))
    f = open("/data/gone", "w+"); os.unlink("/data/gone"); f.write("still"); f.flush(); f.seek(0); print(f.read(), os.fstat(f.fileno()).st_nlink)
    f = open("/data/t", "w"); os.utime("/data/t", ns=(1, 1234567890123456789)); print(os.stat("/data/t").st_mtime_ns)
    got = []; signal.signal(signal.SIGALRM, lambda *_: got.append(1)); signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01); signal.pause(); signal.setitimer(signal.ITIMER_REAL, 0); print(got[:1])
    print(os.sysconf("SC_PAGESIZE"), os.path.ismount("/data"), os.path.ismount("/proc"), os.path.ismount("/root"))
    with open("/data/big", "wb") as f: f.seek(5 << 30); f.write(b"x")
    print(os.stat("/data/big").st_size)
    e = select.epoll(); e.register(a.fileno(), select.EPOLLIN); b.send(b"y"); print(len(e.poll(1)))
    print(os.getxattr.__name__, os.cpu_count() > 0, time.time() > 1.7e9)
END
