//! The schema walferry on the target, made by somebody else before the migration: nothing of it
//! is used, and what is on its tables never runs with walferry's rights.

use crate::journey::{PATIENCE, execute, value};
use crate::support::connect;
use crate::support::pair::{DATABASE, Pair};
use crate::support::process::Walferry;
use walferry::demo::cluster::SUPERUSER;

/// What a state is made by, so that nothing but its owner tells it from one of walferry's.
const STATE: &str = include_str!("../../src/state/schema.sql");

const TRAPS: &str = "CREATE TABLE public.stolen (by text); \
    CREATE FUNCTION public.take() RETURNS trigger LANGUAGE plpgsql AS \
        $$ BEGIN INSERT INTO public.stolen VALUES (session_user); RETURN NEW; END $$; \
    GRANT INSERT ON public.stolen TO PUBLIC; GRANT ALL ON SCHEMA walferry TO PUBLIC; GRANT ALL ON ALL TABLES IN SCHEMA walferry TO PUBLIC; \
    GRANT ALL ON ALL SEQUENCES IN SCHEMA walferry TO PUBLIC; \
    CREATE TRIGGER taken BEFORE INSERT OR UPDATE ON walferry.migration FOR EACH ROW EXECUTE FUNCTION public.take()";

/// The story: an ordinary user of the target made the schema, with a trigger, before walferry
/// came; it took that for its own, and the trigger ran as walferry's role.
#[tokio::test]
async fn a_state_that_somebody_else_has_made_is_refused_by_check_and_run_and_nothing_of_it_runs() {
    let pair = Pair::builder().start().await;
    pair.source_sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
    let admin = connect(&pair.target.socket_uri(SUPERUSER, DATABASE)).await;
    let grants = format!(
        "CREATE ROLE mallory; GRANT CREATE ON DATABASE {DATABASE} TO mallory; GRANT CREATE ON SCHEMA public TO mallory"
    );
    execute(&admin, &[&grants, "SET ROLE mallory", STATE, TRAPS, "RESET ROLE"]).await;
    let check = Walferry::run(&pair, &["check"], PATIENCE).code(3);
    let run = Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(3);
    let status = Walferry::run(&pair, &["status"], PATIENCE);
    for (command, said) in [("check", check.stdout + &check.stderr), ("run", run.stderr), ("status", status.stderr)] {
        assert!(said.contains("the schema walferry belongs to role mallory"), "{command}: {said}");
        assert!(said.contains("walferry.migration has the trigger taken"), "{command}: {said}");
        assert!(said.contains("ALTER SCHEMA walferry RENAME TO walferry_of_another_role;"), "{command}: {said}");
    }
    assert_eq!(value(&admin, "SELECT count(*) FROM public.stolen").await, "0");
    // What is printed leads on.
    execute(&admin, &["ALTER SCHEMA walferry RENAME TO walferry_of_another_role; DROP TABLE public.stolen CASCADE"])
        .await;
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    let target = pair.target_client().await;
    assert_eq!(value(&target, "SELECT count(*) FROM t").await, "1");
    assert_eq!(value(&admin, "SELECT count(*) FROM walferry_of_another_role.migration").await, "0");
}
