//! Little trees, each with one violation or with none.

use super::*;

const FLOORS: &[Floors] = &[Floors { root: "src/lib.rs", floors: &["low", "mid mid::deep other", "high"] }];

/// Returns the violations of a tree whose crates are the library `engine`, a program, and a test.
fn violations(files: &[(&str, &str)]) -> Vec<String> {
    let read = |path: &Path| {
        let found = files.iter().find(|(name, _)| Path::new(name) == path);
        found.map(|(_, text)| (*text).to_owned())
    };
    let root = |library: Option<&str>, path: &str, is_test| Root {
        library: library.map(str::to_owned),
        path: path.into(),
        is_test,
    };
    let roots = [
        root(Some("engine"), "src/lib.rs", false),
        root(None, "app/main.rs", false),
        root(None, "tests/all/main.rs", true),
    ];
    let roots = roots.into_iter().filter(|root| read(&root.path).is_some()).collect();
    check(&Tree::load(roots, &read).unwrap(), FLOORS).into_iter().collect()
}

#[test]
fn two_files_that_import_each_other_are_named() {
    let found = violations(&[
        ("src/lib.rs", "mod low; mod mid;"),
        ("src/low.rs", "use crate::{mid::{self, Y as Z}}; pub struct X(Z);"),
        ("src/mid.rs", "use super::low; pub struct Y(low::X);"),
    ]);
    assert_eq!(
        found,
        [
            "src/low.rs: `Z` runs up to src/mid.rs",
            "src/low.rs: `crate::mid::Y` runs up to src/mid.rs",
            "src/low.rs: `crate::mid` runs up to src/mid.rs",
            "src/low.rs: it imports `crate::mid` from src/mid.rs, which imports `super::low` from src/low.rs",
        ]
    );
}

#[test]
fn a_longer_circle_is_named_once() {
    let found = violations(&[
        ("app/main.rs", "mod a; mod b; mod c;"),
        ("app/a.rs", "use crate::b::B; pub struct A;"),
        ("app/b.rs", "pub struct B(crate::c::C);"),
        ("app/c.rs", "pub struct C; fn f() { assert!(matches!(1, crate::a::A)) }"),
    ]);
    assert_eq!(
        found,
        ["app/a.rs: it imports `crate::b::B` from app/b.rs, which imports `crate::c::C` from app/c.rs, \
             which imports `crate::a::A` from app/a.rs"]
    );
}

#[test]
fn a_re_export_is_an_import_of_the_file_that_defines_the_item() {
    // low imports nothing of mod.rs, and mid's re-export of deep is no import.
    let tree = |lib: &'static str, mid: &'static str| {
        violations(&[
            ("src/lib.rs", lib),
            ("src/mid/mod.rs", mid),
            ("src/mid/deep.rs", "use super::Y; pub struct X(Y);"),
            ("src/mid/other.rs", "pub struct Y;"),
        ])
    };
    let own = "mod deep; mod other; pub use deep::X; pub(crate) use self::other::*;";
    assert!(tree("mod mid; pub use mid::X;", own).is_empty());
    // Y is mod.rs's own now, and mod.rs uses X.
    let used = "mod deep; mod other; pub use deep::X; pub struct Y; fn f(_: X) {}";
    assert_eq!(
        tree("mod mid;", used),
        ["src/mid/mod.rs: it imports `X` from src/mid/deep.rs, which imports `super::Y` from src/mid/mod.rs"]
    );
    // A private use counts by itself.
    let private = "mod deep; mod other; use deep::X; pub struct Y;";
    assert_eq!(tree("mod mid;", private).len(), 1);
}

#[test]
fn an_import_that_runs_up_is_named() {
    let found = violations(&[
        ("src/lib.rs", "mod high; mod low; mod mid; pub struct Root;"),
        ("src/low.rs", "use engine::high::H; fn f(_: crate::Root) {}"),
        ("src/mid.rs", "pub struct M;"),
        ("src/high.rs", "use crate::mid::M; pub struct H;"),
    ]);
    assert_eq!(
        found,
        [
            "src/low.rs: `crate::Root` runs up to src/lib.rs",
            "src/low.rs: `engine::high::H` runs up to src/high.rs",
        ]
    );
    let found = violations(&[("src/lib.rs", "mod new;"), ("src/new.rs", "")]);
    assert_eq!(found, ["src/new.rs: `new` is on no floor"]);
}

#[test]
fn a_test_may_import_what_it_tests() {
    let found = violations(&[
        ("src/lib.rs", "mod high; mod low;"),
        ("src/low.rs", "pub fn f() {} #[cfg(test)] mod tests { use super::*; use crate::high::H; }"),
        ("src/high.rs", "pub struct H; fn g() { crate::low::f() } #[cfg(test)] mod tests;"),
        ("src/high/tests.rs", "use super::H;"),
        ("tests/all/main.rs", "mod one; mod two;"),
        ("tests/all/one.rs", "use crate::two::two; pub fn one() {}"),
        ("tests/all/two.rs", "use crate::one::one; pub fn two() {}"),
    ]);
    assert_eq!(
        found,
        [
            "src/high.rs: it declares modules of other files, so it must be x/mod.rs",
            "tests/all/one.rs: it imports `crate::two::two` from tests/all/two.rs, which imports `crate::one::one` from tests/all/one.rs",
        ]
    );
}

#[test]
fn a_long_file_is_named_and_its_tests_do_not_count() {
    let code = "fn f() {}\n".repeat(MOST_LINES);
    let tests = format!("#[cfg(test)]\nmod tests {{\n{code}}}\n");
    let long = format!("{code}fn g() {{}}\n{tests}");
    for (text, expected) in
        [(format!("{code}{tests}"), None), (long, Some("app/main.rs: 501 lines, and 500 are the most"))]
    {
        let found = violations(&[("app/main.rs", &text)]);
        assert_eq!(found.first().map(String::as_str), expected);
    }
}

#[test]
fn fields_and_variables_are_no_imports() {
    let found = violations(&[
        (
            "app/main.rs",
            "mod a; mod b; fn f(a: A) { let b = 1; println!(\"{}\", a.b); drop(b) } struct A { b: u8 }",
        ),
        ("app/a.rs", "use crate::b; fn g() { b::h() }"),
        ("app/b.rs", "use super::A; pub fn h() {}"),
    ]);
    assert!(found.is_empty(), "{found:?}");
}
