//! On a terminal: bars are drawn, and what is logged meanwhile stays readable.

use std::fs::File;
use std::io::Read;
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::migration::{NAME, PATIENCE, source_admin, usual_pair};
use crate::support::process::command_for;
use crate::support::wait_until;

/// Wide enough for every line, so that none is looked for in two pieces.
const COLUMNS: NonZeroU16 = NonZeroU16::new(400).unwrap();
const LINES: NonZeroU16 = NonZeroU16::new(60).unwrap();

/// A terminal: what is written to its other end is read here.
fn terminal() -> (File, OwnedFd) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let other = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    let size = Winsize { ws_row: LINES.get(), ws_col: COLUMNS.get(), ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&other, size).unwrap();
    (File::from(master), other)
}

/// The command on a terminal; what came to it is read by the thread.
fn on_terminal(mut command: Command) -> (std::process::Child, std::thread::JoinHandle<Vec<u8>>) {
    let (mut master, other) = terminal();
    command.env("TERM", "xterm").stdin(Stdio::null()).stdout(Stdio::null()).stderr(other);
    let child = command.spawn().unwrap();
    // The command holds the other end as well; without it the reading ends.
    drop(command);
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        // An error (EIO) once nobody has the other end any more.
        while let Ok(read @ 1..) = master.read(&mut chunk) {
            bytes.extend_from_slice(&chunk[..read]);
        }
        bytes
    });
    (child, reader)
}

/// The story: log lines went to the terminal behind the bars' back, and the next
/// drawing wiped them away: of a warning nothing was ever seen.
#[tokio::test(flavor = "multi_thread")]
async fn a_warning_that_is_logged_while_bars_are_drawn_stays_on_the_screen() {
    let pair = usual_pair().await;
    pair.source_sql(
        "CREATE TABLE public.long (id int PRIMARY KEY, t text); \
         INSERT INTO public.long SELECT i, repeat(md5(i::text), 4) FROM generate_series(1, 30000) i",
    )
    .await;
    let run = ["run", "--until", "caught-up", "--copy-rate", "1MiB", "--wal-warn", "1MiB", "--jobs", "1"];
    let (mut child, reader) = on_terminal(command_for(&pair, &run));
    let source = source_admin(&pair).await;
    let reading = "SELECT FROM pg_stat_activity WHERE application_name = $1 AND query LIKE 'COPY%long%'";
    wait_until("the table is being read", PATIENCE, || async {
        !source.query(reading, &[&NAME]).await.unwrap().is_empty()
    })
    .await;
    // WAL, and no change.
    pair.source_sql("SELECT pg_logical_emit_message(false, 'noise', repeat('x', 2000000))").await;
    wait_until("it has ended", PATIENCE, || {
        let has_ended = child.try_wait().unwrap().is_some();
        async move { has_ended }
    })
    .await;
    let bytes = reader.join().unwrap();
    let drawn = String::from_utf8_lossy(&bytes);
    assert!(drawn.contains("of WAL held back") && drawn.contains('█'), "no bar in {drawn}");
    let mut screen = vt100::Parser::new(LINES, COLUMNS, 1000);
    screen.process(&bytes);
    let shown = screen.screen().contents();
    for words in ["holds back much WAL", "created the replication slot", "streaming"] {
        assert!(shown.contains(words), "no \"{words}\" on the screen:\n{shown}");
    }
    assert!(!shown.contains('█'), "the bars have gone:\n{shown}");
}

/// The story: whoever closed the window (of `walferry run & disown`) ended the copy with the
/// next line that was logged while bars were drawn.
#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_is_gone_ends_nothing() {
    let pair = usual_pair().await;
    pair.source_sql(
        "CREATE TABLE public.long (id int PRIMARY KEY, t text); \
         INSERT INTO public.long SELECT i, repeat(md5(i::text), 4) FROM generate_series(1, 30000) i",
    )
    .await;
    let (master, other) = terminal();
    let run = ["run", "--until", "caught-up", "--copy-rate", "1MiB", "--jobs", "1"];
    let mut command = command_for(&pair, &run);
    command.env("TERM", "xterm").stdin(Stdio::null()).stdout(Stdio::null()).stderr(other);
    let mut child = command.spawn().unwrap();
    drop(command);
    let source = source_admin(&pair).await;
    let reading = "SELECT FROM pg_stat_activity WHERE application_name = $1 AND query LIKE 'COPY%long%'";
    wait_until("the table is being read", PATIENCE, || async {
        !source.query(reading, &[&NAME]).await.unwrap().is_empty()
    })
    .await;
    drop(master);
    wait_until("it has ended", PATIENCE, || {
        let has_ended = child.try_wait().unwrap().is_some();
        async move { has_ended }
    })
    .await;
    assert_eq!(child.wait().unwrap().code(), Some(0));
    pair.assert_equal().await;
}
