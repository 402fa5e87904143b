//! What the operating system reports about a server (CPU time, writes, memory), and how busy the
//! rest of the machine was.
//!
//! CPU time is `/proc/<pid>/task/*/schedstat`, in nanoseconds. The receiving half of a loopback
//! socket runs in the sender's time, so it is included, for every server alike. Writes are `syscw`
//! in `/proc/<pid>/io`, which counts `write` and `writev` but not `send`; all servers here write
//! events with `writev`.

use std::{fs, time::Instant};

use crate::Result;

/// Clock ticks per second in `/proc/stat`: the kernel's interface to programs fixes it.
const TICKS: f64 = 100.0;

/// Counters of one process; they only grow.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    pub(crate) writes: f64,
    pub(crate) written: f64,
    /// Voluntary context switches of its threads.
    pub(crate) sleeps: f64,
}

impl Usage {
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let mut usage = Self::default();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?.path();
            let runtime = fs::read_to_string(task.join("schedstat"))?;
            let runtime = runtime.split(' ').next().unwrap_or_default();
            usage.cpu_seconds += runtime.parse::<f64>()? / 1e9;
            let status = fs::read_to_string(task.join("status"))?;
            usage.sleeps += field(&status, "voluntary_ctxt_switches:")?;
        }
        let io = fs::read_to_string(format!("/proc/{pid}/io"))?;
        usage.writes = field(&io, "syscw:")?;
        usage.written = field(&io, "wchar:")?;
        Ok(usage)
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds - before.cpu_seconds,
            writes: self.writes - before.writes,
            written: self.written - before.written,
            sleeps: self.sleeps - before.sleeps,
        }
    }
}

/// Resident memory of a process, in KiB.
pub(crate) fn resident(pid: u32) -> Result<f64> {
    field(
        &fs::read_to_string(format!("/proc/{pid}/status"))?,
        "VmRSS:",
    )
}

/// Memory that the kernel holds for all TCP sockets of the machine, in KiB.
pub(crate) fn in_sockets() -> Result<f64> {
    let sockets = fs::read_to_string("/proc/net/sockstat")?;
    let tcp = sockets.lines().find(|line| line.starts_with("TCP:"));
    let pages = tcp.and_then(|line| line.rsplit(' ').next());
    Ok(pages.ok_or("no TCP line in sockstat")?.parse::<f64>()? * 4.0)
}

/// Bytes that the kernel holds unsent for the peer with this port.
pub(crate) fn unsent_to(port: u16) -> Result<f64> {
    let table = fs::read_to_string("/proc/net/tcp")?;
    let peer = format!(":{port:04X}");
    let line = table
        .lines()
        .filter_map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>().into())
        .find(|fields: &Vec<_>| fields.get(1).is_some_and(|remote| remote.ends_with(&peer)));
    let queues = line.and_then(|fields| fields.get(3).and_then(|field| field.split_once(':')));
    let (unsent, _) = queues.ok_or("a connection is not in /proc/net/tcp")?;
    Ok(u64::from_str_radix(unsent, 16)? as f64)
}

fn field(text: &str, name: &str) -> Result<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|line| line.split_whitespace().next());
    let value = value.ok_or_else(|| format!("no {name} in /proc"))?;
    Ok(value.parse()?)
}

/// Measures how many cores other programs use.
#[derive(Debug)]
pub(crate) struct Others {
    since: Instant,
    busy: f64,
    ours: f64,
    server: u32,
}

impl Others {
    pub(crate) fn watch(server: u32) -> Result<Self> {
        Ok(Self {
            since: Instant::now(),
            busy: busy()?,
            ours: ticks_of(server)? + ticks_of(std::process::id())?,
            server,
        })
    }

    /// The average number of cores that other programs have used since [`Self::watch`].
    pub(crate) fn cores(&self) -> Result<f64> {
        let ours = ticks_of(self.server)? + ticks_of(std::process::id())? - self.ours;
        let others = (busy()? - self.busy - ours) / TICKS;
        Ok((others / self.since.elapsed().as_secs_f64()).max(0.0))
    }
}

/// Ticks that were neither idle nor waiting for a disk. Time stolen by the host counts as busy.
fn busy() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let fields = stat.lines().next().unwrap_or_default().split_whitespace();
    let mut busy = 0.0;
    for (at, value) in fields.skip(1).take(8).enumerate() {
        if !matches!(at, 3 | 4) {
            busy += value.parse::<f64>()?;
        }
    }
    Ok(busy)
}

fn ticks_of(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may contain spaces.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let mut fields = fields.split_whitespace().skip(11);
    let mut next = || -> Result<f64> { Ok(fields.next().ok_or("a short stat")?.parse()?) };
    Ok(next()? + next()?)
}

/// The most files that this process may have open.
pub(crate) fn file_limit() -> Result<usize> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3));
    Ok(match soft.ok_or("no file limit in /proc")? {
        "unlimited" => usize::MAX,
        soft => soft.parse()?,
    })
}

/// The machine, in one line.
pub(crate) fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "{} with {cores} cores, Linux {}",
        model.unwrap_or("an unknown processor"),
        kernel.trim()
    )
}
