//! Tests of the command list: what is read, what is refused, and that no bytes do anything else.

use proptest::prelude::*;

use super::super::Access;
use super::*;

const OLD: &str = "1111111111111111111111111111111111111111";
const NEW: &str = "2222222222222222222222222222222222222222";

/// Packets for lines, then a flush.
fn list(lines: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in lines {
        pkt_line::write(&mut bytes, line.as_bytes());
    }
    bytes.extend_from_slice(pkt_line::FLUSH);
    bytes
}

fn read(bytes: &[u8]) -> Result<PushRequest, PushError> {
    let mut reader = CommandReader::new(4096);
    if reader.push(bytes)? { Ok(reader.finish().0) } else { Err(PushError::Incomplete) }
}

fn session() -> Access {
    Access::Session {
        session: ostler_protocol::SessionId::generate(),
        repository: "demo".parse().unwrap(),
        base_branch: "main".into(),
        push_branch: "ostler/x".into(),
    }
}

#[test]
fn a_push_as_git_sends_it_is_read() {
    let first = format!("{OLD} {NEW} refs/heads/ostler/x\0 report-status-v2 side-band-64k agent=git/2.47.3");
    let request = read(&list(&[&format!("shallow {OLD}"), &first, &format!("{ZERO} {NEW} refs/tags/v1\n")])).unwrap();
    let update =
        |old: &str, reference: &str| RefUpdate { old: old.into(), new: NEW.into(), reference: reference.into() };
    assert_eq!(request.updates, [update(OLD, "refs/heads/ostler/x"), update(ZERO, "refs/tags/v1")]);
    assert_eq!(request.capabilities, ["report-status-v2", "side-band-64k", "agent=git/2.47.3"]);
    assert_eq!(read(b"0000").unwrap(), PushRequest::default());
}

#[test]
fn malformed_lines_are_refused_with_their_number() {
    let good = format!("{OLD} {NEW} refs/heads/a");
    let bad = [
        "".to_owned(),
        "hello".to_owned(),
        "push-cert\0report-status".to_owned(),
        format!("shallow {OLD} "),
        format!("{OLD}  {NEW} refs/heads/a"),
        format!("{OLD} {} refs/heads/a", &NEW[1..]),
        format!("{OLD} {}A refs/heads/a", &NEW[1..]),
        format!("{OLD} {NEW} HEAD"),
        format!("{OLD} {NEW} refs/heads/a\n\n"),
        format!("{OLD} {NEW} refs/heads/a b"),
        format!("{OLD} {NEW} refs/heads/{}", "a".repeat(1100)),
        format!("{OLD} {NEW} refs/heads/a\0x\0y"),
        format!("{OLD} {NEW} refs/heads/a\0report-status"),
    ];
    for line in bad {
        let error = read(&list(&[&good, &line])).unwrap_err();
        assert!(matches!(error, PushError::Line { line: 2, .. }), "{line:?} gave {error:?}");
    }
    assert!(matches!(read(b"0001"), Err(PushError::Line { line: 1, .. })));
    assert_eq!(read(b"POST"), Err(PushError::Packet(PacketError::Digits)));
}

#[test]
fn a_list_without_end_is_given_up_on() {
    let mut reader = CommandReader::new(1000);
    let mut line = Vec::new();
    pkt_line::write(&mut line, format!("{OLD} {NEW} refs/heads/a").as_bytes());
    let error = (0..100).find_map(|_| reader.push(&line).err()).unwrap();
    assert_eq!(error, PushError::TooLong { limit: 1000 });
}

#[test]
fn what_comes_after_the_list_is_kept_for_git() {
    let mut bytes = list(&[&format!("{OLD} {NEW} refs/heads/a\0")]);
    bytes.extend_from_slice(b"PACK and more");
    let mut reader = CommandReader::new(4096);
    let (head, rest) = bytes.split_at(50);
    assert!(!reader.push(head).unwrap());
    assert!(reader.push(rest).unwrap());
    assert_eq!(reader.finish().1, bytes);
}

#[test]
fn a_session_pushes_to_its_own_branch_only() {
    let table = [
        (vec!["refs/heads/ostler/x"], NEW, "", None),
        (vec!["refs/heads/ostler/x"], ZERO, "", Some("may not delete")),
        (vec!["refs/heads/main"], NEW, "", Some("by pull request")),
        (vec!["refs/heads/ostler/y"], NEW, "", Some("only to refs/heads/ostler/x")),
        (vec!["refs/heads/ostler/x/y"], NEW, "", Some("only to")),
        (vec!["refs/heads/ostler/X"], NEW, "", Some("only to")),
        (vec!["refs/tags/ostler/x"], NEW, "", Some("only to")),
        (vec!["refs/heads/ostler/x", "refs/heads/main"], NEW, "", Some("nothing was updated")),
        (vec!["refs/heads/ostler/x", "refs/heads/ostler/x"], NEW, "", Some("named twice")),
        (vec!["refs/heads/ostler/x"], NEW, "push-options", Some("may not use `push-options`")),
        (vec!["refs/heads/ostler/x"], NEW, "push-cert=nonce", Some("may not use `push-cert`")),
    ];
    for (references, new, capability, expected) in table {
        let lines: Vec<_> = references.iter().map(|reference| format!("{OLD} {new} {reference}")).collect();
        let mut lines: Vec<_> = lines.iter().map(String::as_str).collect();
        let first = format!("{}\0{capability}", lines[0]);
        lines[0] = &first;
        let request = read(&list(&lines)).unwrap();
        let refusals = session().refusals(&request);
        assert_eq!(Access::Full.refusals(&request), None);
        match expected {
            None => assert_eq!(refusals, None),
            Some(words) => {
                let refusals = refusals.unwrap();
                assert_eq!(refusals.len(), references.len());
                assert!(refusals[0].contains(words), "{references:?} gave {refusals:?}");
            }
        }
    }
}

#[test]
fn a_refusal_is_a_status_report() {
    let line = format!("{OLD} {NEW} refs/heads/main\0report-status");
    let request = read(&list(&[&line])).unwrap();
    let plain = refusal(&request, &["no".to_owned()]);
    assert_eq!(String::from_utf8(plain).unwrap(), "000eunpack ok\n001ang refs/heads/main no\n0000");
    let request = read(&list(&[&format!("{line} side-band-64k")])).unwrap();
    let banded = refusal(&request, &["no".to_owned()]);
    assert_eq!(String::from_utf8(banded).unwrap(), "0031\u{1}000eunpack ok\n001ang refs/heads/main no\n00000000");
    let request = read(&list(&[&line.replace("report-status", "side-band-64k")])).unwrap();
    assert_eq!(refusal(&request, &["no".to_owned()]), b"0008\x03no\n0000");
}

proptest! {
    #[test]
    fn pieces_do_not_matter(
        cuts in proptest::collection::vec(1usize..40, 0..20),
        names in proptest::collection::vec("[a-z/]{1,20}", 1..5),
        tail in proptest::collection::vec(any::<u8>(), 0..50),
    ) {
        let lines: Vec<_> = names.iter().map(|name| format!("{OLD} {NEW} refs/{name}")).collect();
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        let mut bytes = list(&lines);
        bytes.extend_from_slice(&tail);
        let mut reader = CommandReader::new(4096);
        let mut rest = &bytes[..];
        let mut done = false;
        for cut in cuts.into_iter().chain([bytes.len()]) {
            let (piece, others) = rest.split_at(cut.min(rest.len()));
            rest = others;
            done = reader.push(piece).unwrap();
            if done {
                break;
            }
        }
        prop_assert!(done);
        let (request, kept) = reader.finish();
        prop_assert_eq!(request.updates.len(), names.len());
        prop_assert!(bytes.starts_with(&kept));
    }

    /// Whatever the bytes: an error or a list that is within the limit, and no update that is not spelt out in them.
    #[test]
    fn no_bytes_smuggle_an_update(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), flips in proptest::collection::vec((0usize..200, any::<u8>()), 0..4)) {
        let _ = read(&bytes);
        bytes = list(&[&format!("{OLD} {NEW} refs/heads/ostler/x\0report-status"), &format!("{OLD} {NEW} refs/heads/main")]);
        for (at, byte) in flips {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        if let Ok(request) = read(&bytes) {
            for update in &request.updates {
                let spelt = format!("{} {} {}", update.old, update.new, update.reference);
                prop_assert!(bytes.windows(spelt.len()).any(|window| window == spelt.as_bytes()));
            }
            if session().refusals(&request).is_none() {
                prop_assert!(request.updates.iter().all(|update| update.reference == "refs/heads/ostler/x"));
            }
        }
    }
}
