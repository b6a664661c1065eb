//! Low load: how long after its commit on the source a single row is visible
//! on the target.
//!
//! Invariant: the clock starts when the source has answered the commit, and
//! the row is looked for without a pause worth naming; so a figure is the delay
//! that an application would see, with one round trip of the look in it.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::contenders::drop_subscription;
use crate::error::BenchError;
use crate::process::Process;
use crate::report::Latency;
use crate::rig::{DATABASE, NATIVE_BASE, PUBLICATION, RUN, Rig};
use crate::workloads::{Load, Setup, Workload};

/// Rows that are measured; the first ones warm up and do not count.
const SAMPLES: u64 = 200;

/// Rows that do not count.
const WARM_UP: u64 = 20;

/// Pause between two rows: low load.
const PAUSE: Duration = Duration::from_millis(20);

/// Pause between two looks at the target.
const LOOK: Duration = Duration::from_micros(100);

/// The longest that a row may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Measures walferry, then a native subscription.
pub fn measure(rig: &Rig) -> Result<Vec<Latency>, BenchError> {
    let workload = Workload {
        name: "latency",
        title: String::new(),
        setup: Setup::Sql("CREATE TABLE rows (id bigint PRIMARY KEY, note text)".to_owned()),
        on_target: "",
        load: Load::Sql(String::new()),
        changes: 0,
        transactions: 0,
    };
    rig.prepare(&workload)?;
    rig.fresh("walferry", Some(DATABASE))?;
    let command = rig.walferry(&rig.source_uri(), &rig.target_uri(RUN), &["run"]);
    let mut process = Process::start("walferry run", command)?;
    let walferry = sample("walferry", rig, 0, || process.look())?;
    process.stop(LIMIT)?;
    rig.fresh("native", Some(NATIVE_BASE))?;
    rig.sql(&rig.target, RUN)?.run(&format!(
        "CREATE SUBSCRIPTION native CONNECTION '{}' PUBLICATION {PUBLICATION} \
         WITH (slot_name = 'native', create_slot = false, copy_data = false)",
        rig.source_uri()
    ))?;
    let native = sample("native", rig, SAMPLES + WARM_UP, || Ok(()));
    drop_subscription(rig)?;
    let native = native?;
    rig.clear()?;
    Ok(vec![walferry, native])
}

fn sample(
    contender: &str,
    rig: &Rig,
    from: u64,
    mut meanwhile: impl FnMut() -> Result<(), BenchError>,
) -> Result<Latency, BenchError> {
    let (source, target) = (rig.sql(&rig.source, DATABASE)?, rig.sql(&rig.target, RUN)?);
    let mut seconds = Vec::new();
    for n in 0..SAMPLES + WARM_UP {
        let id = from + n;
        source.run(&format!("INSERT INTO rows VALUES ({id}, 'note')"))?;
        let begun = Instant::now();
        let look = format!("SELECT 1 FROM rows WHERE id = {id}");
        while target.rows(&look)?.is_empty() {
            if begun.elapsed() > LIMIT {
                return Err(BenchError::Late(format!("a single row through {contender}")));
            }
            sleep(LOOK);
        }
        if n >= WARM_UP {
            seconds.push(begun.elapsed().as_secs_f64());
        }
        meanwhile()?;
        sleep(PAUSE);
    }
    seconds.sort_by(f64::total_cmp);
    let at = |share: f64| seconds.get((seconds.len() as f64 * share) as usize).copied().unwrap_or_default() * 1000.0;
    let (median_ms, p95_ms, p99_ms) = (at(0.5), at(0.95), at(0.99));
    Ok(Latency { contender: contender.to_owned(), samples: seconds.len(), median_ms, p95_ms, p99_ms })
}
