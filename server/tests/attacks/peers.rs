//! What one address may do before it has shown a good key, and that its neighbours' keys go on.

use std::io::Read;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;
use server::limits::{FAILURES_BURST, STRANGERS_MAX};

use super::ground::Ground;
use super::process::{Client, IOS, eventually, problem};

const ROOT_KEY: &str = "a-root-key-for-the-attacks";

const PATH: &str = "/db/control/v2/pipeline";

fn status(client: &mut Client) -> (u16, String) {
    let response = client.post(PATH, &json!({"requests": []})).expect("answered");
    let code = if response.status == 200 { String::new() } else { problem(&response.body).0 };
    (response.status, code)
}

#[test]
fn strangers_of_one_address() {
    for io in IOS {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), ROOT_KEY).expect("written");
        let path = file.path().display().to_string();
        let arguments = ["--auth", "on", "--root-key-file", &path, "--peer-budgets", "on"];
        let mut ground = Ground::with_key(io, &arguments, Some(ROOT_KEY));
        let good = || ground.server.client().with_token(ROOT_KEY);

        // Whoever has shown a good key before goes on whatever others do.
        let mut known = good();
        assert_eq!(status(&mut known), (200, String::new()));
        let mut told = Vec::new();
        for attempt in 0..FAILURES_BURST + 20 {
            let mut stranger = ground.server.client().with_token(&format!("forged-{attempt}"));
            told.push(status(&mut stranger));
        }
        assert_eq!(told[0], (401, "UNAUTHORIZED".to_owned()));
        let refused = (429, "TOO_MANY_FAILURES".to_owned());
        assert!(told.contains(&refused), "{told:?}");
        assert!(told.iter().all(|other| *other == told[0] || *other == refused), "{told:?}");
        assert_eq!(status(&mut known), (200, String::new()));
        // A newcomer of the same address waits until some of it is forgotten.
        eventually(5, "failures are forgotten", || status(&mut good()).0 == 200);

        // Connections that show nothing.
        let mut idle = Vec::new();
        for _ in 0..STRANGERS_MAX + 8 {
            idle.push(TcpStream::connect(ground.server.address).expect("the kernel listens"));
        }
        eventually(5, "one too many is closed", || {
            idle.iter_mut().any(|stream| {
                stream.set_read_timeout(Some(Duration::from_millis(1))).expect("a socket");
                matches!(stream.read(&mut [0]), Ok(0))
            })
        });
        assert_eq!(status(&mut known), (200, String::new()));
        drop(idle);
        eventually(5, "their places are free again", || {
            let response = good().post(PATH, &json!({"requests": []}));
            response.is_ok_and(|response| response.status == 200)
        });
        ground.check("strangers");
        ground.finish(&format!("strangers of one address, {io}"));
    }
}
