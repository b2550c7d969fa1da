//! What must hold of any bytes that come over a link: reading them ends, and what was read can be written and is read as the
//! same again.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reads `bytes` as a message of type `T`, as the receiving side does.
pub fn check<T: DeserializeOwned + Serialize + PartialEq + Debug>(bytes: &[u8]) {
    let Ok((message, _)) = postcard::take_from_bytes::<T>(bytes) else { return };
    let encoded = postcard::to_stdvec(&message).expect("what was read can be written");
    assert!(encoded.len() <= bytes.len(), "the shortest form is no longer than another");
    let again: T = postcard::from_bytes(&encoded).expect("what was written can be read");
    assert_eq!(again, message);
}
