//! Both ends over a real socket, with made-up connections and with hostile clients. No test asserts a duration.

use std::io::{self, BufRead as _, BufReader, Read as _, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::Duration;
use std::{env, fs, process};

use super::answer::MAX_REQUEST;
use super::client::{SILENCE, Whom, list};
use super::door::{Door, connect};
use super::row::HEAD;
use super::server::{Patience, Server};
use super::*;
use synmill_engine::endpoint::View;
use synmill_engine::flow::FlowKey;
use synmill_engine::proto::{SeqNum, State, Timer};
use synmill_engine::time::Instant;

/// A new folder for one test. Dropping it removes it.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("synmill-conns-{}-{name}", process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Returns a connection with few known values.
pub(super) fn view(slot: u32, state: State, local: &str, peer: &str) -> View {
    let [local, peer]: [SocketAddr; 2] = [local, peer].map(|address| address.parse().unwrap());
    View {
        slot,
        role: 0,
        key: FlowKey {
            local: local.ip().into(),
            remote: peer.ip().into(),
            local_port: local.port(),
            remote_port: peer.port(),
        },
        state,
        is_active: false,
        snd_una: SeqNum(1),
        snd_nxt: SeqNum(1),
        snd_wnd: 65_535,
        snd_scale: 0,
        rcv_nxt: SeqNum(1),
        rcv_wnd: 65_535,
        mss: 536,
        timestamps: false,
        window_scale: false,
        sack: false,
        timer: Timer::None,
        timer_ms: 0,
        rtt_us: None,
        rto_ms: 1000,
        backoff: 0,
        retransmissions: 0,
        congestion: None,
        age: Duration::from_secs(1),
    }
}

/// Returns a connection with all values.
pub(super) fn full(slot: u32) -> View {
    View {
        role: 2,
        snd_una: SeqNum(1000),
        snd_nxt: SeqNum(2448),
        snd_wnd: 64_256,
        snd_scale: 7,
        rcv_nxt: SeqNum(5000),
        mss: 1448,
        timestamps: true,
        window_scale: true,
        sack: true,
        timer: Timer::Retransmit,
        timer_ms: 187,
        rtt_us: Some([1_500, 500]),
        rto_ms: 201,
        backoff: 1,
        retransmissions: 3,
        congestion: Some([14_480, 65_535]),
        age: Duration::from_nanos(12_345_678_901),
        ..view(slot, State::Established, "198.18.0.2:80", "198.18.0.1:1024")
    }
}

/// Returns rows for docs/json.md: one has every path, the other null in every path that allows it.
pub(crate) fn documented_rows() -> [Row; 2] {
    [full(1), view(2, State::TimeWait, "198.18.0.2:80", "198.18.0.1:1024")].map(|view| Row::new(0, &view))
}

/// Connections that do not change.
type Fixed = Vec<Option<View>>;

impl Views for Fixed {
    fn slots(&self) -> u32 {
        self.len() as u32
    }

    fn view(&self, slot: u32, _now: Instant) -> Option<View> {
        self[slot as usize]
    }
}

/// A number of slots, and a function that makes their connections.
impl<F: Fn(u32) -> Option<View>> Views for (u32, F) {
    fn slots(&self) -> u32 {
        self.0
    }

    fn view(&self, slot: u32, _now: Instant) -> Option<View> {
        self.1(slot)
    }
}

/// Returns a worker with a connection in each of the most possible slots.
fn endless() -> impl Views + Send + 'static {
    (u32::MAX, |slot| Some(full(slot)))
}

/// Returns two workers, with 5 and 300 connections. Every third slot is empty.
fn some() -> Vec<Fixed> {
    let states = [State::Established, State::TimeWait, State::SynReceived, State::CloseWait];
    let worker = |count: u32, subnet: u32| {
        let one = |number: u32| {
            let peer = format!("198.18.{subnet}.{}:{}", number % 200, 1024 + number);
            let view = view(number, states[number as usize % 4], "198.18.255.2:80", &peer);
            View { retransmissions: number / 10, age: Duration::from_secs((number % 7).into()), ..view }
        };
        (0..count * 3 / 2).map(|slot| (slot % 3 != 2).then(|| one(slot))).collect()
    };
    vec![worker(5, 1), worker(300, 2)]
}

/// Patience with hostile clients.
const SHORT: Patience = Patience { request: Duration::from_millis(50), chunk: Duration::from_millis(50) };
/// Patience with well-behaved clients on a machine that may be busy.
const LONG: Patience = Patience { request: Duration::from_secs(60), chunk: Duration::from_secs(60) };

/// A request for all connections.
const ALL: &[u8] = b"{\"states\":[],\"peers\":[],\"top\":null}\n";

fn serve(folder: &Folder, workers: Vec<impl Views + Send + 'static>, patience: Patience) -> Server {
    let door = Door::in_folder(folder.path()).unwrap();
    Server::start(door, workers, || Instant::ZERO, patience).unwrap()
}

/// Starts a server in a new folder.
fn serving(name: &str, workers: Vec<impl Views + Send + 'static>, patience: Patience) -> (Folder, Server) {
    let folder = Folder::new(name);
    let server = serve(&folder, workers, patience);
    (folder, server)
}

/// Returns the output of `synmill conns`, or its error.
fn ask_whom(folder: &Folder, whom: &Whom, request: &Request, json: bool) -> Result<String, String> {
    let mut out = Vec::new();
    list(folder.path(), whom, request, json, SILENCE, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

fn ask(folder: &Folder, request: &Request) -> Vec<Row> {
    let text = ask_whom(folder, &Whom::Only, request, true).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Returns the rows of all connections that a filter accepts.
fn expected(workers: &[Fixed], wants: impl Fn(&View) -> bool) -> Vec<Row> {
    let all = workers.iter().enumerate().flat_map(|(worker, views)| {
        views.iter().flatten().filter(|view| wants(view)).map(move |view| Row::new(worker, view))
    });
    all.collect()
}

#[test]
fn all_that_is_there_is_listed_once() {
    let (folder, _server) = serving("all", some(), LONG);
    let rows = ask(&folder, &Request::default());
    assert_eq!(rows, expected(&some(), |_| true));
    assert_eq!(rows.len(), 305);
    let text = ask_whom(&folder, &Whom::Only, &Request::default(), false).unwrap();
    assert_eq!(text.lines().count(), 1 + 2 * 305 + 1);
    assert!(text.ends_with("\n305 listed of 305 in the table (worker 0: 5, worker 1: 300)\n"), "{text}");
}

#[test]
fn filters_are_the_endpoints_work() {
    let (folder, _server) = serving("filters", some(), LONG);
    let request = Request {
        states: vec!["established".parse().unwrap(), "time-wait".parse().unwrap()],
        peers: vec!["198.18.2.0/27".parse().unwrap(), "fd00:18::/64".parse().unwrap()],
        top: None,
    };
    let rows = ask(&folder, &request);
    assert_eq!(rows, expected(&some(), |view| request.wants(view)));
    assert!(!rows.is_empty() && rows.len() < 100, "{}", rows.len());
    let text = ask_whom(&folder, &Whom::Only, &request, false).unwrap();
    let last = format!("{} listed of 305 in the table (worker 0: 5, worker 1: 300)", rows.len());
    assert_eq!(text.lines().last(), Some(&last[..]));
}

#[test]
fn the_top_is_the_head_of_a_sorted_list() {
    let (folder, _server) = serving("top", some(), LONG);
    let all = expected(&some(), |_| true);
    for sort in [Sort::Retransmissions, Sort::Unacked, Sort::Rtt, Sort::Age] {
        for count in [1, 10, 304, 305, 1000] {
            let mut sorted = all.clone();
            // The sort is stable: of equal ones the first by worker and slot stays first.
            sorted.sort_by(|a, b| {
                let most = |row: &Row| match sort {
                    Sort::Retransmissions => row.retransmissions,
                    Sort::Unacked => row.unacked,
                    Sort::Rtt => row.rtt_us.unwrap_or(0),
                    Sort::Age => 0,
                };
                (most(b), b.age_s).cmp(&(most(a), a.age_s))
            });
            sorted.truncate(count);
            let request = Request { top: Some(Top { count, sort }), ..Request::default() };
            assert_eq!(ask(&folder, &request), sorted, "{count} by {sort:?}");
        }
    }
    let request = Request { top: Some(Top { count: 2, sort: Sort::Age }), ..Request::default() };
    let text = ask_whom(&folder, &Whom::Only, &request, false).unwrap();
    assert!(text.contains("\n2 listed of 305 that match, 305 in the table ("), "{text}");
}

#[test]
fn an_endpoint_without_connections_has_an_empty_list() {
    let (folder, _server) = serving("none", vec![Vec::new(), vec![None; 5000]], LONG);
    assert_eq!(ask(&folder, &Request::default()), []);
    let text = ask_whom(&folder, &Whom::Only, &Request::default(), false).unwrap();
    assert_eq!(text, "0 listed of 0 in the table (worker 0: 0, worker 1: 0)\n");
}

/// Sends bytes, and returns the whole answer.
fn send(server: &Server, bytes: &[u8]) -> String {
    let mut client = connect(server.path()).unwrap();
    client.write_all(bytes).unwrap();
    io::read_to_string(client).unwrap()
}

#[test]
fn garbage_is_refused_in_a_line() {
    let (folder, server) = serving("garbage", some(), LONG);
    let long = [&[b'x'; MAX_REQUEST][..], b"\n"].concat();
    let deep = ["[".repeat(5000).as_bytes(), b"\n"].concat();
    let state = br#"{"states":["open"],"peers":[],"top":null}"#;
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\n", b"{}\n", b"\xff\xfe\0\n", state, &long, &deep] {
        let mut client = connect(server.path()).unwrap();
        client.write_all(bytes).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        // The server does not read all of the long request, so the answer's end may be an error.
        let _ = BufReader::new(client).read_line(&mut answer);
        let Last::Error(line) = serde_json::from_str(&answer).unwrap() else { panic!("{answer}") };
        assert!(line.starts_with("not a request: "), "{line}");
    }
    let refused = send(&server, b"{\"states\":[],\"peers\":[],\"top\":{\"count\":0,\"sort\":\"age\"}}\n");
    assert!(refused.contains("from 1 to 100000"), "{refused}");
    assert_eq!(ask(&folder, &Request::default()).len(), 305);
}

#[test]
fn who_says_nothing_or_too_little_is_sent_away() {
    let (folder, server) = serving("silent", some(), SHORT);
    for bytes in [b"".as_slice(), b"{\"states\":["] {
        assert_eq!(send(&server, bytes), "", "the server closes the socket after its patience");
    }
    // A client that sends byte after byte for ever: the patience is for the whole request.
    let mut slow = connect(server.path()).unwrap();
    while slow.write_all(b" ").is_ok() {
        thread::sleep(Duration::from_millis(1));
    }
    // Clients that leave before the accept.
    for _ in 0..5 {
        drop(connect(server.path()).unwrap());
    }
    assert_eq!(ask(&folder, &Request::default()).len(), 305);
}

#[test]
fn who_does_not_read_is_sent_away() {
    let (_folder, server) = serving("deaf", vec![endless()], SHORT);
    let mut deaf = connect(server.path()).unwrap();
    deaf.write_all(ALL).unwrap();
    // The server serves this client after it gives the first one up.
    let request = "{\"states\":[\"closed\"],\"peers\":[],\"top\":null}\n";
    assert!(send(&server, request.as_bytes()).contains("no state"));
    // The answer to the first breaks off.
    let answer = io::read_to_string(deaf).unwrap();
    assert!(answer.as_bytes().starts_with(HEAD) && !answer.contains("\"end\""));
}

/// A writer that takes some bytes, then fails.
struct Full(usize, io::ErrorKind);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.0);
        self.0 -= count;
        if count == 0 { Err(self.1.into()) } else { Ok(count) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let (folder, _server) = serving("enough", vec![endless()], LONG);
    for json in [false, true] {
        let into =
            |kind| list(folder.path(), &Whom::Only, &Request::default(), json, SILENCE, Full(100_000, kind));
        assert_eq!(into(io::ErrorKind::BrokenPipe), Ok(()));
        assert!(into(io::ErrorKind::StorageFull).unwrap_err().starts_with("writing the list: "));
    }
}

#[test]
fn an_endpoint_that_ends_does_not_wait_for_its_client() {
    let (_folder, server) = serving("ends", vec![endless()], LONG);
    let mut client = connect(server.path()).unwrap();
    client.write_all(ALL).unwrap();
    let mut client = BufReader::new(client);
    let mut line = String::new();
    client.read_line(&mut line).unwrap();
    assert!(line.as_bytes().starts_with(HEAD), "{line}");
    let silent = connect(server.path()).unwrap();
    let path = server.path().to_owned();
    drop(server);
    assert!(!path.exists());
    // Both streams end, one of them perhaps in the middle of a line.
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    let _ = (&silent).read_to_end(&mut rest);
}

/// Starts an endpoint that gives this answer to any request, and ends.
fn parrot(folder: &Folder, answer: Vec<u8>) -> (Whom, thread::JoinHandle<()>) {
    let path = folder.path().join("parrot");
    let listener = UnixListener::bind(&path).unwrap();
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = String::new();
        BufReader::new(&stream).read_line(&mut request).unwrap();
        serde_json::from_str::<Request>(&request).unwrap();
        // The client may have left.
        let _ = stream.write_all(&answer);
    });
    (Whom::Socket(path), thread)
}

#[test]
fn an_answer_that_is_not_whole_is_a_failure() {
    let row = serde_json::to_string(&Row::new(0, &full(1))).unwrap() + "\n";
    let table: [(&str, Vec<u8>, &str); 8] = [
        ("at once", Vec::new(), "the list is incomplete"),
        ("row", row.clone().into(), "the list is incomplete"),
        ("half", row.as_bytes()[..row.len() / 2].into(), "the list is incomplete"),
        ("alive", "\n\n".into(), "the list is incomplete"),
        ("newer", [HEAD, b"\"colour\":1}\n"].concat(), "this version of `synmill`: missing field"),
        ("other", "220 mail.example ESMTP\n".into(), "not from this version of `synmill`"),
        ("endless", vec![b'x'; 1 << 20], "not from `synmill`"),
        ("refused", "{\"error\":\"the top 0: give 1\"}\n".into(), "the endpoint refuses: the top 0"),
    ];
    for (name, answer, part) in table {
        let folder = Folder::new(&format!("parrot-{name}"));
        let (whom, thread) = parrot(&folder, answer);
        let mut out = Vec::new();
        let line = list(folder.path(), &whom, &Request::default(), false, SILENCE, &mut out).expect_err(name);
        assert!(line.contains(part) && !line.contains('\n'), "{name}: {line}");
        assert_eq!(name == "row", String::from_utf8(out).unwrap().contains("198.18.0.1:1024"), "{name}");
        thread.join().unwrap();
    }
}

#[test]
fn an_endpoint_that_says_nothing_is_left() {
    let folder = Folder::new("mute");
    let path = folder.path().join("mute");
    let _listener = UnixListener::bind(&path).unwrap();
    let whom = Whom::Socket(path);
    let silence = Duration::from_millis(20);
    let line = list(folder.path(), &whom, &Request::default(), true, silence, io::sink()).unwrap_err();
    assert!(line.starts_with("no answer for 0.02 s: the endpoint serves another client"), "{line}");
}

#[test]
fn the_only_endpoint_is_found_and_of_several_one_is_named() {
    let folder = Folder::new("find");
    let find = |whom: &Whom| ask_whom(&folder, whom, &Request::default(), false);
    let nobody = find(&Whom::Only).unwrap_err();
    assert!(nobody.contains("no endpoint runs here") && nobody.contains("--socket PATH"), "{nobody}");
    assert!(find(&Whom::Process(1)).unwrap_err().contains("process 1 is no endpoint"));

    let server = serve(&folder, some(), LONG);
    drop(UnixListener::bind(folder.path().join("4194305.sock")).unwrap());
    fs::write(folder.path().join("notes"), "").unwrap();
    for whom in [Whom::Only, Whom::Process(process::id()), Whom::Socket(server.path().into())] {
        assert!(find(&whom).unwrap().contains("305 listed"), "{whom:?}");
    }
    let dead = find(&Whom::Process(4_194_305)).unwrap_err();
    assert!(dead.contains("nobody listens there"), "{dead}");

    let _other = UnixListener::bind(folder.path().join("4194306.sock")).unwrap();
    let several = find(&Whom::Only).unwrap_err();
    assert!(several.starts_with("2 endpoints run here: give --pid with one of "), "{several}");
    assert!(several.contains(&format!("{} (", process::id())) && several.contains("4194306 ()"), "{several}");
    assert!(find(&Whom::Process(process::id())).is_ok());
    let none = find(&Whom::Socket(folder.path().join("none"))).unwrap_err();
    assert!(none.contains("No such file"), "{none}");
}

#[test]
fn the_workers_come_first() {
    // A connection's role is the nice value of the thread that looks.
    let nice = |slot| {
        let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
        // Field 19 of proc_pid_stat(5). The second is the name, in brackets.
        let nice = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(16));
        Some(View { role: nice.unwrap().parse().unwrap(), ..full(slot) })
    };
    let (folder, _server) = serving("nice", vec![(1, nice)], LONG);
    assert_eq!(ask(&folder, &Request::default())[0].role, 19);
}

#[test]
fn clients_at_the_same_time_are_served_in_turn() {
    // Slots that fill and empty during the search, but for every tenth.
    let looks = AtomicU32::new(0);
    let churn = move |slot: u32| {
        let look = looks.fetch_add(1, SeqCst);
        (slot.is_multiple_of(10) || look.is_multiple_of(3)).then(|| full(slot))
    };
    let (folder, _server) = serving("turns", vec![(20_000, churn)], LONG);
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let rows = ask(&folder, &Request::default());
                let slots: Vec<u32> = rows.iter().map(|row| row.slot).collect();
                assert!(slots.is_sorted_by(|a, b| a < b), "none twice");
                let lasting = slots.iter().filter(|slot| slot.is_multiple_of(10)).count();
                assert_eq!(lasting, 2000, "all that were there all the time");
            });
        }
    });
}

#[test]
fn a_search_that_finds_nothing_gives_signs_of_life() {
    let slow = |_| {
        thread::sleep(Duration::from_millis(1));
        None
    };
    // The server looks at the clock twice, more than a second apart.
    let (_folder, server) = serving("life", vec![(1024 + 1, slow)], LONG);
    let answer = send(&server, ALL);
    assert!(answer.starts_with('\n') && answer.trim_start().starts_with("{\"end\":"), "{answer}");
}
