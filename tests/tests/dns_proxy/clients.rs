//! Real clients of real servers, which are programs of the machine: the
//! packages postgresql, redis-server and redis-tools.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use egress_lab::{
    Command, Family, Host, Output, Process, address, eventually,
    harness::{TestResult, libtest_mimic::Failed},
};
use tempfile::TempDir;

use crate::scene::{Scene, answer, network, parsed};

/// How long a program may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Both addresses of the server.
const ADDRESSES: [&str; 2] = ["198.51.100.1", "203.0.113.2"];

fn installed(path: &str) -> Result<PathBuf, Failed> {
    let found = PathBuf::from(path);
    if found.exists() {
        Ok(found)
    } else {
        Err(format!("{path} is missing: scripts/install-deps installs what the tests need").into())
    }
}

/// The newest version of a program of PostgreSQL.
fn postgresql(name: &str) -> Result<PathBuf, Failed> {
    let versions = fs::read_dir(installed("/usr/lib/postgresql")?)?;
    let mut programs: Vec<PathBuf> = versions
        .map(|version| Ok(version?.path().join("bin").join(name)))
        .collect::<Result<_, std::io::Error>>()?;
    programs.retain(|program| program.exists());
    programs.sort();
    programs.pop().ok_or_else(|| {
        format!("{name} of postgresql is missing: scripts/install-deps installs it").into()
    })
}

/// A program of PostgreSQL that must not be run by root: a user namespace of
/// its own makes the user of the test, whoever that is, the user that the
/// package made. It ends with the test.
fn as_postgres(host: &Host, program: &Path) -> Result<Command, Failed> {
    let words = [
        "--user",
        "--ipc",
        "--map-user=postgres",
        "--map-group=postgres",
        "--",
        "/usr/bin/setpriv",
        "--pdeathsig=KILL",
        "--",
    ];
    let command = Command::new(host.netns(), installed("/usr/bin/unshare")?);
    let command = words.into_iter().fold(command, Command::arg);
    Ok(command
        .arg(program.to_string_lossy())
        .env("LC_ALL", "C")
        .env("PATH", "/usr/bin:/bin")
        .own_pid_namespace()
        .deadline(DEADLINE))
}

fn arguments(command: Command, arguments: &[&str]) -> Command {
    arguments.iter().copied().fold(command, Command::arg)
}

/// PostgreSQL on both addresses of the outside.
struct Postgres {
    _process: Process,
    _folder: TempDir,
}

impl Postgres {
    fn start(outside: &Host) -> Result<Self, Failed> {
        let folder = tempfile::tempdir()?;
        let data = folder.path().join("data");
        let data = data.to_string_lossy();
        let init = as_postgres(outside, &postgresql("initdb")?)?;
        let options = [
            "--username=lab",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "--pgdata",
            &data,
        ];
        let _ = arguments(init, &options).run()?.expect(0);
        // For everybody, who are the lab.
        fs::write(
            folder.path().join("data/pg_hba.conf"),
            "host all all all trust\n",
        )?;
        let sockets = format!("unix_socket_directories={}", folder.path().display());
        let listen = format!("listen_addresses={}", ADDRESSES.join(","));
        let settings = [
            listen.as_str(),
            &sockets,
            "fsync=off",
            "dynamic_shared_memory_type=mmap",
        ];
        let server = as_postgres(outside, &postgresql("postgres")?)?
            .arg("-D")
            .arg(&*data);
        let process = settings
            .iter()
            .fold(server, |server, setting| server.arg("-c").arg(*setting))
            .spawn()?;
        process.await_stderr("ready to accept connections", DEADLINE)?;
        Ok(Self {
            _process: process,
            _folder: folder,
        })
    }
}

/// A client of PostgreSQL on the client's host.
fn postgres_client(scene: &Scene, name: &str) -> Result<Command, Failed> {
    let to = scene.address(5432);
    Ok(Command::new(scene.lab.client().netns(), postgresql(name)?)
        .env("PGHOST", to.ip().to_string())
        .env("PGPORT", to.port().to_string())
        .env("PGUSER", "lab")
        .env("PGDATABASE", "postgres")
        .env("PGCONNECT_TIMEOUT", "30")
        .env("LC_ALL", "C")
        .deadline(DEADLINE))
}

/// What psql writes for these commands, one after the other over one
/// connection.
fn psql(scene: &Scene, commands: &[&str]) -> Result<Output, Failed> {
    let psql = postgres_client(scene, "psql")?;
    let psql = arguments(psql, &["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1"]);
    let psql = commands
        .iter()
        .fold(psql, |psql, command| psql.arg("-c").arg(*command));
    Ok(psql.run()?)
}

pub(crate) fn psql_and_postgresql() -> TestResult {
    let lab = network()?;
    answer(&lab, "db.test", 1, &ADDRESSES[..1]);
    let _server = Postgres::start(lab.outside())?;
    let scene = Scene::start(lab, "5432 db.test")?;
    // The server sees the egress address.
    let source = address::source(Family::Ipv4);
    let seen = psql(&scene, &["SELECT inet_client_addr(), inet_server_addr()"])?.expect(0);
    assert_eq!(seen.stdout, format!("{source}|{}\n", ADDRESSES[0]));

    // Much each way.
    let folder = tempfile::tempdir()?;
    let (up, down) = (folder.path().join("up"), folder.path().join("down"));
    let rows: String = (0..200_000_u32)
        .map(|row| {
            format!(
                "{row}\t{:08x}{:08x}\n",
                row.wrapping_mul(2_654_435_761),
                row
            )
        })
        .collect();
    fs::write(&up, &rows)?;
    let copied = psql(
        &scene,
        &[
            "CREATE TABLE rows (number int PRIMARY KEY, text text)",
            &format!("\\copy rows FROM '{}'", up.display()),
            &format!(
                "\\copy (SELECT * FROM rows ORDER BY number) TO '{}'",
                down.display()
            ),
        ],
    )?
    .expect(0);
    assert_eq!(copied.stdout, "CREATE TABLE\nCOPY 200000\nCOPY 200000\n");
    assert!(fs::read_to_string(&down)? == rows);

    // Several at a time, a connection for each transaction.
    let bench = |options: &[&str]| {
        let bench = postgres_client(&scene, "pgbench")?;
        Ok::<_, Failed>(arguments(bench, options).run()?.expect(0))
    };
    let _ = bench(&["-i", "-q", "-s", "1"])?;
    let ran = bench(&["-C", "-c", "4", "-t", "25"])?;
    let all = "number of transactions actually processed: 100/100";
    assert!(ran.stdout.contains(all), "{}", ran.stdout);

    // An error is the server's, word by word.
    let wrong = psql(&scene, &["SELECT * FROM nowhere"])?.expect(1);
    assert!(
        wrong.stderr.contains("relation \"nowhere\" does not exist"),
        "{}",
        wrong.stderr
    );
    Ok(())
}

/// The name moves while a session is open: it goes on where it is, and the
/// next is elsewhere.
pub(crate) fn a_session_of_psql_outlives_a_change() -> TestResult {
    let lab = network()?;
    answer(&lab, "db.test", 1, &ADDRESSES[..1]);
    let _server = Postgres::start(lab.outside())?;
    let scene = Scene::start(lab, "5432 db.test")?;
    let session = postgres_client(&scene, "psql")?;
    let where_am_i = "SELECT inet_server_addr()";
    let open = arguments(
        session,
        &[
            "-X", "-A", "-t",
            "-c", "CREATE TABLE done (by text)",
            "-c", where_am_i,
            // Until another session says that it is done.
            "-c", "DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM done) LOOP PERFORM pg_sleep(0.05); END LOOP; END $$",
            "-c", where_am_i,
        ],
    )
    .spawn()?;
    open.await_stdout(ADDRESSES[0], DEADLINE)?;
    scene.answer("db.test", 1, &ADDRESSES[1..]);
    eventually(DEADLINE, || match psql(&scene, &[where_am_i]) {
        Ok(output) if output.stdout.trim() == ADDRESSES[1] => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // Nobody answers at all: what is open does not mind.
    scene.answer("db.test", 1, &[]);
    scene.await_questions("db.test", 1);
    let _ = psql(&scene, &["INSERT INTO done VALUES ('me')"])?.expect(0);
    let output = open.wait()?.expect(0);
    let seen: Vec<&str> = output
        .stdout
        .lines()
        .filter(|line| line.contains('.'))
        .collect();
    assert_eq!(seen, [ADDRESSES[0], ADDRESSES[0]], "{}", output.stdout);
    Ok(())
}

pub(crate) fn redis_cli_and_redis() -> TestResult {
    let lab = network()?;
    answer(&lab, "cache.test", 60, &ADDRESSES);
    let folder = tempfile::tempdir()?;
    let server = Command::new(lab.outside().netns(), installed("/usr/bin/redis-server")?);
    let path = folder.path().to_string_lossy().into_owned();
    let options = [
        "--port",
        "6379",
        "--bind",
        ADDRESSES[0],
        ADDRESSES[1],
        "--protected-mode",
        "no",
        "--save",
        "",
        "--appendonly",
        "no",
        "--daemonize",
        "no",
        "--dir",
        &path,
    ];
    let server = arguments(server, &options).deadline(DEADLINE).spawn()?;
    server.await_stdout("Ready to accept connections", DEADLINE)?;
    let scene = Scene::start(lab, "6379 cache.test")?;
    let cli = scene.address(6379);
    let cli = Command::new(scene.lab.client().netns(), installed("/usr/bin/redis-cli")?)
        .arg("-h")
        .arg(cli.ip().to_string())
        .arg("-p")
        .arg(cli.port().to_string())
        .deadline(DEADLINE);
    let says =
        |words: &[&str]| Ok::<_, Failed>(arguments(cli.clone(), words).run()?.expect(0).stdout);
    assert_eq!(says(&["SET", "key", "value"])?, "OK\n");
    assert_eq!(says(&["GET", "key"])?, "value\n");
    // Both addresses are one server, which sees the egress address.
    for _ in 0..2 {
        let clients = says(&["CLIENT", "LIST"])?;
        let from = format!(" addr={}:", address::source(Family::Ipv4));
        assert!(clients.contains(&from), "{clients}");
    }
    let took_turns = |at: &str| says(&["CLIENT", "INFO"]).map(|info| info.contains(at));
    let at = ADDRESSES.map(|address| format!(" laddr={address}:6379"));
    assert_ne!(took_turns(&at[0])?, took_turns(&at[0])?);
    assert_eq!(parsed(&ADDRESSES).len(), at.len());

    // A pipeline, and a megabyte each way.
    let large = "x".repeat(1 << 20);
    fs::write(folder.path().join("large"), &large)?;
    let commands: String = (0..20_000).map(|n| format!("SET key{n} {n}\r\n")).collect();
    fs::write(folder.path().join("commands"), commands)?;
    let to = scene.address(6379);
    let script = format!(
        "cd '{path}'\n\
         redis-cli -h {ip} -p {port} -x SET large < large\n\
         redis-cli -h {ip} -p {port} --raw GET large | head -c {length} | cmp - large\n\
         redis-cli -h {ip} -p {port} --pipe < commands\n\
         redis-cli -h {ip} -p {port} GET key19999\n",
        ip = to.ip(),
        port = to.port(),
        length = large.len(),
    );
    let shell = Command::new(scene.lab.client().netns(), "/bin/sh").env("PATH", "/usr/bin:/bin");
    let ran = arguments(shell, &["-e", "-c", &script])
        .deadline(DEADLINE)
        .run()?
        .expect(0);
    assert!(ran.stdout.starts_with("OK\n"), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("errors: 0, replies: 20000"),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.ends_with("19999\n"), "{}", ran.stdout);

    // A subscriber waits, and hears.
    let subscriber = arguments(cli.clone(), &["--csv", "SUBSCRIBE", "news"]).spawn()?;
    subscriber.await_stdout("\"subscribe\",\"news\",1", DEADLINE)?;
    assert_eq!(says(&["PUBLISH", "news", "today"])?, "1\n");
    subscriber.await_stdout("\"message\",\"news\",\"today\"", DEADLINE)?;
    Ok(())
}
