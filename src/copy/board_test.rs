//! The board: parts of one attempt, losses, and what waits for what.

use super::*;
use crate::config::Side;
use crate::copy::cuts::Memory;
use crate::copy::plan::{Copies, Format};
use crate::lsn::{EndLsn, Lsn};
use crate::observe::progress::Progress;
use crate::sql::TableName;
use crate::state::copying::Attempt;
use crate::state::tables::Origin;

const WAITING: Seed = Seed::Rows(Leftover::Nothing);

fn plan(generation: u64, parts: usize) -> Arc<RowsPlan> {
    let point = EndLsn::of_slot(Lsn::new(generation));
    let parts = vec![String::new(); parts];
    let copies = Copies { source_oid: 1, format: Format::Text, copy_in: String::new(), parts };
    Arc::new(RowsPlan { generation, point, origin: Origin::default(), copies })
}

fn board<const N: usize>(seeds: [Seed; N]) -> Board {
    Board::new(seeds.map(|seed| (seed, Cuts::default())), N)
}

fn tally() -> Arc<Tally> {
    Arc::new(Tally::new(Progress::lines().table(&TableName::new("public", "t"), 0), Attempt::NONE))
}

/// What can be done right now.
fn now(board: &Board) -> Option<Task> {
    board.inner().pick().flatten()
}

fn is_over(board: &Board) -> bool {
    matches!(board.inner().pick(), Some(None))
}

/// Takes the table's beginning, and begins it.
fn begin(board: &Board) -> Leftover {
    let Some(Task::Begin { table, leftover, .. }) = now(board) else { panic!("nothing to begin") };
    assert_eq!(board.begun(table, &tally(), |_| true), Some(0));
    leftover
}

fn part(board: &Board) -> usize {
    let Some(Task::Part { part, .. }) = now(board) else { panic!("no part to do") };
    part
}

fn cut() -> Option<Failure> {
    Some(Failure { side: Side::Source, lived: Duration::from_secs(5), bytes: Some(7) })
}

#[test]
fn a_table_is_complete_when_its_last_part_is() {
    let board = board([WAITING]);
    assert!(now(&board).is_none(), "there is no snapshot yet");
    board.snapshot(1, vec![(0, plan(1, 3))]);
    assert_eq!(begin(&board), Leftover::Nothing);
    assert_eq!((part(&board), part(&board)), (1, 2));
    assert!(now(&board).is_none() && !is_over(&board), "others may still fail");
    assert_eq!((board.part_done(0), board.part_done(0)), (After::More, After::More));
    assert_eq!(board.part_done(0), After::Complete);
    assert_eq!(board.rows_there(0, &tally()), Taken::Yes);
    board.ready(0);
    assert!(is_over(&board));
}

#[test]
fn a_lost_part_lets_the_table_begin_anew_once_nobody_is_at_work_on_it() {
    let board = board([WAITING]);
    board.snapshot(1, vec![(0, plan(1, 4))]);
    begin(&board);
    assert_eq!(part(&board), 1);
    assert_eq!(board.failed(0, cut(), "cut"), Attempts::Left);
    assert!(now(&board).is_none(), "one part is still at work, and no other is begun");
    assert_eq!(board.part_done(0), After::Broken);
    assert_eq!(begin(&board), Leftover::Rows);
}

#[test]
fn without_its_snapshot_a_table_with_parts_left_is_broken_off_and_one_that_is_all_in_work_goes_on() {
    let board = board([WAITING, WAITING, Seed::Indexes]);
    board.snapshot(1, vec![(0, plan(1, 1)), (1, plan(1, 3))]);
    begin(&board);
    begin(&board);
    assert_eq!(part(&board), 1);
    board.snapshot_lost(1);
    assert_eq!((board.part_done(1), board.part_done(1)), (After::Broken, After::Broken));
    assert_eq!(board.part_done(0), After::Complete);
    assert_eq!(board.rows_there(0, &tally()), Taken::Yes);
    assert!(matches!(now(&board), Some(Task::Index { table: 2, .. })), "indexes need no snapshot");
    assert!(now(&board).is_none(), "nothing is begun without one");
    assert_eq!(board.without_rows(), [1]);
    board.snapshot(2, vec![(1, plan(2, 2))]);
    let Some(Task::Begin { plan, leftover, .. }) = now(&board) else { panic!("nothing to begin") };
    assert_eq!((plan.generation, leftover), (2, Leftover::Rows));
}

#[test]
fn a_table_whose_snapshot_goes_while_it_is_begun_is_begun_again() {
    let board = board([WAITING]);
    board.snapshot(1, vec![(0, plan(1, 2))]);
    let Some(Task::Begin { .. }) = now(&board) else { panic!("nothing to begin") };
    board.snapshot_lost(1);
    assert_eq!(board.begun(0, &tally(), |_| false), None);
    board.snapshot(2, vec![(0, plan(2, 2))]);
    assert_eq!(begin(&board), Leftover::Rows);
}

#[test]
fn a_table_that_is_cut_off_every_time_is_given_up_and_the_others_go_on() {
    let board = board([WAITING, WAITING]);
    board.snapshot(1, vec![(0, plan(1, 1)), (1, plan(1, 1))]);
    for attempt in 1..=ATTEMPTS {
        begin(&board);
        let left = if attempt < ATTEMPTS { Attempts::Left } else { Attempts::Exhausted };
        assert_eq!(board.failed(0, cut(), "cut"), left, "attempt {attempt}");
    }
    begin(&board);
    assert_eq!(board.part_done(1), After::Complete);
    assert_eq!(board.rows_there(1, &tally()), Taken::Yes);
    board.ready(1);
    assert!(is_over(&board));
    let given_up = board.given_up();
    assert_eq!((given_up.len(), given_up[0].table, given_up[0].cuts.failures.len()), (1, 0, ATTEMPTS));
}

#[test]
fn connections_that_were_never_made_do_not_count_as_attempts() {
    let board = board([WAITING]);
    board.snapshot(1, vec![(0, plan(1, 1))]);
    for _ in 0..3 * ATTEMPTS {
        let Some(Task::Begin { table, .. }) = now(&board) else { panic!("nothing to begin") };
        assert_eq!(board.failed(table, None, "refused"), Attempts::Left);
    }
    assert!(board.given_up().is_empty());
}

#[test]
fn what_was_cut_off_with_the_whole_copy_counts_next_time() {
    let (memory, name) = (Memory::default(), TableName::new("public", "t"));
    for attempt in 0..ATTEMPTS {
        let board = Board::new([(WAITING, memory.of(&name)), (WAITING, Cuts::default())], 2);
        assert!(board.given_up().is_empty(), "attempt {attempt}");
        board.snapshot(1, vec![(0, plan(1, 1)), (1, plan(1, 1))]);
        begin(&board);
        let cuts = board.cut_off(Side::Target, "the lease was lost");
        assert!(cuts[1].failures.is_empty(), "nobody was at work on the other table");
        memory.keep(std::iter::once(&name).zip(cuts));
    }
    let board = Board::new([(WAITING, memory.of(&name))], 1);
    assert_eq!(board.given_up().len(), 1);
}

#[test]
fn an_object_that_was_built_is_progress() {
    let board = board([Seed::Indexes]);
    for _ in 0..3 * ATTEMPTS {
        let Some(Task::Index { table, .. }) = now(&board) else { panic!("nothing to build") };
        board.object_built(table);
        assert_eq!(board.failed(table, cut(), "cut"), Attempts::Left);
    }
}

#[test]
fn no_more_indexes_are_built_at_once_than_may_be_and_rows_go_on_meanwhile() {
    let board = Board::new([WAITING, WAITING, WAITING].map(|seed| (seed, Cuts::default())), 1);
    board.snapshot(1, (0..3).map(|table| (table, plan(1, 1))).collect());
    begin(&board);
    begin(&board);
    assert_eq!((board.part_done(0), board.part_done(1)), (After::Complete, After::Complete));
    let rows = tally();
    assert_eq!((board.rows_there(0, &rows), board.rows_there(1, &rows)), (Taken::Yes, Taken::No));
    begin(&board);
    assert!(now(&board).is_none(), "there is no room for another one's indexes");
    assert_eq!(board.failed(0, cut(), "cut"), Attempts::Left);
    let Some(Task::Index { table: 0, .. }) = now(&board) else { panic!("the first one waits again") };
    board.ready(0);
    let Some(Task::Index { table: 1, tally: Some(kept) }) = now(&board) else { panic!("now there is room") };
    assert!(Arc::ptr_eq(&kept, &rows), "its rows are not counted twice");
}

#[test]
fn a_table_that_was_written_anew_is_begun_first_under_a_newer_snapshot_and_no_older_one() {
    let board = board([WAITING, WAITING, WAITING]);
    let plans = |generation| (0..3).map(|table| (table, plan(generation, 1))).collect();
    board.snapshot(1, plans(1));
    let Some(Task::Begin { table: 0, .. }) = now(&board) else { panic!("the largest comes first") };
    let Some(Task::Begin { table: 1, .. }) = now(&board) else { panic!("then the next") };
    assert!(!board.inner().books.wants_snapshot());
    board.rewritten(1, 1);
    assert!(board.inner().books.wants_snapshot());
    assert_eq!(begin(&board), Leftover::Nothing, "the others go on under the one that there is");
    assert!(now(&board).is_none());
    board.rewritten(0, 1);
    board.snapshot(2, plans(2));
    assert!(board.needs(1) && board.needs(2), "the third is still read under the first one");
    let Some(Task::Begin { table: 0, plan, leftover }) = now(&board) else { panic!("nothing to begin") };
    assert_eq!((plan.generation, leftover), (2, Leftover::Rows));
    assert_eq!(board.part_done(2), After::Complete);
    assert_eq!(board.rows_there(2, &tally()), Taken::Yes);
    assert!(!board.needs(1), "nothing is read under it any more");
}

#[test]
fn a_part_of_a_table_that_was_written_anew_ends_the_attempt_once_the_others_are_through() {
    let board = board([WAITING]);
    board.snapshot(1, vec![(0, plan(1, 4))]);
    begin(&board);
    assert_eq!(part(&board), 1);
    board.rewritten(0, 1);
    assert!(now(&board).is_none() && !board.inner().books.wants_snapshot(), "one part is still at work");
    assert_eq!(board.part_done(0), After::Broken);
    assert!(now(&board).is_none() && board.inner().books.wants_snapshot());
    board.snapshot(2, vec![(0, plan(2, 4))]);
    assert_eq!(begin(&board), Leftover::Rows);
}

#[test]
fn a_table_that_is_written_anew_before_every_attempt_is_given_up() {
    let board = board([WAITING]);
    for generation in 1..=REWRITES as u64 {
        board.snapshot(generation, vec![(0, plan(generation, 1))]);
        let Some(Task::Begin { .. }) = now(&board) else { panic!("nothing to begin") };
        board.rewritten(0, generation);
    }
    assert!(is_over(&board));
    assert_eq!(board.given_up()[0].rewrites, REWRITES);
}

/// The story: each step counted all tables by state and looked for the next one
/// from the first on, so the copy's own work grew with the square of its tables.
#[test]
fn a_copy_of_twenty_thousand_tables_looks_at_each_a_few_times() {
    const TABLES: usize = 20_000;
    let board = Board::new((0..TABLES).map(|_| (WAITING, Cuts::default())), 4);
    board.snapshot(1, (0..TABLES).map(|table| (table, plan(1, 1))).collect());
    let rows = tally();
    while let Some(task) = now(&board) {
        let Task::Begin { table, .. } = task else { panic!("each is begun and built at once") };
        assert_eq!(board.begun(table, &rows, |_| true), Some(0));
        assert_eq!(board.part_done(table), After::Complete);
        assert_eq!(board.rows_there(table, &rows), Taken::Yes);
        assert_eq!(board.count(TableState::Indexing), 1);
        board.object_built(table);
        board.ready(table);
    }
    assert!(is_over(&board));
    assert_eq!(board.count(TableState::Ready), TABLES);
    let visits = board.inner().visits;
    assert!(visits <= 10 * TABLES, "{visits} looks at {TABLES} tables");
}

proptest::proptest! {
    /// Whatever happens, in whatever order.
    #[test]
    fn the_books_say_what_a_walk_over_all_tables_would_say(
        steps in proptest::collection::vec((0..9_u8, 0..6_usize, 1..4_usize), 1..200),
    ) {
        let board = Board::new((0..6).map(|_| (WAITING, Cuts::default())), 2);
        let mut generation = 0;
        for (step, table, parts) in steps {
            match step {
                0 => {
                    generation += 1;
                    let plans = board.without_rows().into_iter().map(|table| (table, plan(generation, parts))).collect();
                    board.snapshot(generation, plans);
                }
                1 => board.snapshot_lost(generation),
                2 => drop(board.begun(table, &tally(), |_| true)),
                3 if board.part_done(table) == After::Complete => {
                    let _taken = board.rows_there(table, &tally());
                }
                4 => board.rewritten(table, generation),
                5 => drop(board.failed(table, cut(), "cut")),
                6 => board.object_built(table),
                7 if board.bytes(table).is_none() => board.ready(table),
                _ => drop(now(&board)),
            }
            let mut inner = board.inner();
            let kept = std::mem::take(&mut inner.books);
            inner.write_books();
            proptest::prop_assert_eq!(&kept, &inner.books);
        }
    }
}

#[tokio::test]
async fn who_waits_is_woken_by_what_changes() {
    let board = board([WAITING]);
    let (task, ()) = tokio::join!(board.next(), async {
        board.snapshot_wanted().await;
        board.snapshot(1, vec![(0, plan(1, 1))]);
    });
    assert!(matches!(task, Some(Task::Begin { table: 0, .. })));
    let guard = board.at_work();
    assert!(!board.is_idle_for(Duration::ZERO));
    drop(guard);
    assert!(board.is_idle_for(Duration::ZERO));
}
