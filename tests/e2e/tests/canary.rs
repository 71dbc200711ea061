//! No secret leaves its place (invariant 6, H39): a campaign and its undo are searched for every secret in every form, and the
//! search finds a planted leak in each class of artefact.

use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Command;
use tde2hsm_e2e::canary::{Canary, scan};
use tde2hsm_e2e::{World, run, strace};

/// Where secrets may lie: keystores, the HSMs themselves, and what the sandbox keeps to itself.
fn skip(dir: &Path) -> impl Fn(&Path) -> bool {
    let own = ["truth", "hsm", "scratch"].map(|name| dir.join(name));
    move |path| {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        own.iter().any(|o| path.starts_with(o)) || name.starts_with("ewallet") || name.starts_with("cwallet")
    }
}

fn canaries(world: &World) -> Result<Vec<Canary>> {
    let mut canaries = Vec::new();
    for name in ["old-hsm", "cloudhsm", "software"] {
        let value = world.secret(name)?;
        // The password alone is as bad as the whole PIN.
        if let Some((_, password)) = value.split_once(':') {
            canaries.push(Canary::new(&format!("{name} password"), password));
        }
        canaries.push(Canary::new(name, &value));
    }
    Ok(canaries)
}

#[test]
fn h39_no_secret_is_found_in_any_artefact_and_planted_ones_are() {
    let run_all = || -> Result<()> {
        let dir = tde2hsm_e2e::scratch()?;
        let out = dir.path().join("out");
        std::fs::create_dir_all(&out)?;
        let trace = out.join("trace-of-hosts");
        let record = out.join("responses.jsonl");
        let world = World::up_traced(&dir.path().join("world"), "small", 4, &trace, &record)?;
        world.setup()?.ok()?;
        world.plan()?.ok()?;
        let traced = |name: &str, words: &[&str]| -> Result<()> {
            let inner = world.tde2hsm();
            let mut outer = strace(&out.join(format!("trace-of-{name}")));
            outer.push(inner.get_program().to_owned());
            let mut command = Command::new(&outer[0]);
            command
                .args(&outer[1..])
                .args(words)
                .current_dir(&world.dir)
                .env("TDE2HSM_JOURNAL", world.journal())
                .envs(world.env());
            let ran = run(&mut command)?.ok()?;
            std::fs::write(out.join(format!("{name}.out")), ran.stdout + &ran.stderr)?;
            Ok(())
        };
        traced("apply", &["apply", "plan.json", "--yes"])?;
        traced("status", &["status"])?;
        let host = world.hosts()?.remove(0);
        let doctor = world.exec(&host, &["/opt/tde2hsm/host-runner", "doctor"])?;
        std::fs::write(out.join("doctor.out"), doctor.stdout + &doctor.stderr)?;
        let moved = world.inspect()?;
        ensure!(moved.sids().iter().all(|sid| moved.on_cloudhsm(sid)), "not migrated");
        traced("undo", &["undo", "--yes"])?;

        let canaries = canaries(&world)?;
        // The sandbox itself starts the simulator's seeding; it may know the secrets, but not by argv either.
        let traced_programs = std::fs::read_to_string(&trace)?;
        for program in ["sqlplus", "host-runner", "configure-pkcs11", "rpm"] {
            ensure!(traced_programs.contains(program), "the trace shows no `{program}`: it does not see what hosts start");
        }
        let skip_world = skip(&world.dir);
        let (mut leaks, files) = scan(&world.dir, &canaries, &skip_world)?;
        let (more, outer_files) = scan(&out, &canaries, &|_| false)?;
        // GetSecretValue's own answer is the secret's way to the host; it is in the record of raw answers and nowhere else.
        leaks.extend(more.into_iter().filter(|leak| leak.place != record));
        let answers = std::fs::read_to_string(&record)?;
        for line in answers.lines().filter(|line| !line.contains("GetSecretValue")) {
            if let Some((canary, form)) = canaries.iter().find_map(|c| c.found_in(line.as_bytes()).map(|form| (&c.name, form))) {
                anyhow::bail!("{canary} ({form}) in an answer: {}", &line[..line.len().min(200)]);
            }
        }
        ensure!(files > 50 && outer_files > 5, "only {files} and {outer_files} files were searched");
        ensure!(leaks.is_empty(), "{leaks:#?}");

        // The self-test: one planted leak in each class of artefact, each in another form.
        let root = world.root(&host);
        let classes = [
            ("journal of the controller", world.path("journal.db-planted")),
            ("journal of the host", root.join("var/lib/tde2hsm/journal/planted")),
            ("operation", root.join("var/lib/tde2hsm/operations/planted")),
            ("agent's orchestration folder", root.join("var/lib/amazon/ssm/planted")),
            ("sqlnet.ora's neighbour", root.join("u01/app/oracle/product/planted")),
            ("log of the client", root.join("opt/cloudhsm-planted.log")),
            ("sandbox log", world.path("log/planted")),
            ("argv or environment", out.join("trace-planted")),
            ("terminal output", out.join("planted.out")),
        ];
        let forms: Vec<_> =
            canaries.iter().flat_map(|c| c.forms().map(|(form, bytes)| (form, bytes.to_vec())).collect::<Vec<_>>()).collect();
        for (number, (class, place)) in classes.iter().enumerate() {
            let (form, bytes) = &forms[number * 3 % forms.len()];
            let mut content = b"something else \x00\xfe".to_vec();
            content.extend_from_slice(bytes);
            std::fs::create_dir_all(place.parent().context("a directory")?)?;
            std::fs::write(place, content)?;
            let found = [scan(&world.dir, &canaries, &skip_world)?.0, scan(&out, &canaries, &|path| path == record)?.0].concat();
            ensure!(found.iter().any(|leak| leak.place == *place), "a leak in the {class} ({form}) was not found");
            std::fs::remove_file(place)?;
        }
        Ok(())
    };
    run_all().expect("no secret is found");
}
