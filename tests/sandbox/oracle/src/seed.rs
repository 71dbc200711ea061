//! `oracle sim-seed`: makes a database that is closed, with its keys where the spec says, and tells the truth
//! about its rows once and for the sandbox alone (H46).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::crypto::{self, Key};
use crate::disk::{
    Active, Container, Control, DataFile, Dictionary, EncRow, Files, KeyBirth, Ledger, Log, Redo, Table, Tablespace,
};
use crate::engine::{Instance, seal_row};
use crate::env::{host_path, now};
use crate::error::{Ora, Result, ora};
use crate::hsm::TwoLibraries;
use crate::keys::{KeyMeta, Kind, Mkid, Wrapped};
use crate::params::{self, Values};
use crate::spec::{AutoLogin, DatabaseSpec, Source, Style, TablespaceSpec, Truth, TruthTable, TsStatus};
use crate::wallet::{self, Body, SsoKind, WalletKey};

/// Makes the database and answers with its truth.
pub fn seed(spec: &DatabaseSpec) -> Result<Truth> {
    let mut rng = ChaCha8Rng::seed_from_u64(name_seed(spec.seed, &spec.sid));
    let data_dir = format!("/u01/oradata/{}", spec.sid);
    if host_path(&data_dir).join("control01.ctl").exists() {
        ora!(1501, "CREATE DATABASE failed: {data_dir} holds a database");
    }
    write_parameters(spec, &data_dir)?;
    write_sqlnet(spec)?;
    write_oratab(spec)?;
    let environment = BTreeMap::from([
        ("ORACLE_HOME".to_owned(), spec.home.clone()),
        ("ORACLE_SID".to_owned(), spec.sid.clone()),
        ("ORACLE_BASE".to_owned(), spec.base.clone()),
    ]);
    let mut instance = Instance::start(&spec.home, &spec.sid, environment, false, None)?;
    let control = control(spec, &data_dir, &mut rng);
    instance.files = Files::of(&control_files(spec, &data_dir));
    instance.ledger = Ledger::default();
    instance.control = Some(control);
    let mut keys = Keys::prepare(spec, &mut instance)?;
    let truth = fill(spec, &mut instance, &mut keys, &mut rng)?;
    keys.finish(spec)?;
    for log in instance.control()?.logs.clone() {
        instance.files.save_redo(&log, &Redo::default())?;
    }
    instance.save_control()?;
    instance.save_ledger()?;
    Ok(truth)
}

fn name_seed(seed: u64, name: &str) -> u64 {
    use sha2::Digest as _;
    let hash = sha2::Sha256::digest(format!("{seed} {name}").as_bytes());
    u64::from_be_bytes(hash[..8].try_into().unwrap_or_default())
}

fn wallet_dir(spec: &DatabaseSpec) -> String {
    spec.wallet_dir.clone().unwrap_or_else(|| format!("{}/admin/{}/wallet", spec.base, spec.sid))
}

/// Where the keystore file lies: WALLET_ROOT has a directory of its own for it.
fn keystore_dir(spec: &DatabaseSpec) -> String {
    let dir = wallet_dir(spec);
    match spec.style {
        Style::WalletRoot => format!("{dir}/tde"),
        Style::Sqlnet => dir,
    }
}

const RECOVERY_AREA: &str = "/u01/fast_recovery_area";

/// The second copy is in the recovery area, as DBCA puts it.
fn control_files(spec: &DatabaseSpec, data_dir: &str) -> String {
    let first = format!("{data_dir}/control01.ctl");
    if spec.archivelog { format!("{first}, {RECOVERY_AREA}/{}/control02.ctl", spec.sid) } else { first }
}

fn write_parameters(spec: &DatabaseSpec, data_dir: &str) -> Result<()> {
    let unique = spec.db_unique_name.clone().unwrap_or_else(|| spec.sid.clone());
    let mut values = Values::from([
        ("audit_file_dest".to_owned(), format!("{}/admin/{}/adump", spec.base, spec.sid)),
        ("compatible".to_owned(), spec.version.clone()),
        ("control_files".to_owned(), control_files(spec, data_dir)),
        ("db_name".to_owned(), spec.sid.clone()),
        ("db_unique_name".to_owned(), unique.clone()),
        ("diagnostic_dest".to_owned(), spec.base.clone()),
        ("open_cursors".to_owned(), "300".into()),
        ("processes".to_owned(), "300".into()),
        ("sga_target".to_owned(), "1610612736".into()),
        ("undo_tablespace".to_owned(), "UNDOTBS1".into()),
    ]);
    if spec.archivelog {
        values.insert("db_recovery_file_dest".into(), RECOVERY_AREA.into());
        values.insert("db_recovery_file_dest_size".into(), "10737418240".into());
    }
    if spec.cdb {
        values.insert("enable_pluggable_database".into(), "TRUE".into());
    }
    if spec.style == Style::WalletRoot {
        values.insert("wallet_root".into(), wallet_dir(spec));
        let configuration = match &spec.source {
            Source::Hsm { auto_open: Some(_), .. } => Some("HSM|FILE"),
            Source::Hsm { .. } => Some("HSM"),
            Source::Software { .. } => Some("FILE"),
            Source::None => None,
        };
        if let Some(value) = configuration {
            values.insert("tde_configuration".into(), format!("KEYSTORE_CONFIGURATION={value}"));
        }
    }
    if spec.planted.data_guard {
        values.insert("log_archive_config".into(), format!("DG_CONFIG=({unique},{unique}_STBY)"));
        values.insert(
            "log_archive_dest_2".into(),
            format!("SERVICE={unique}_STBY ASYNC VALID_FOR=(ONLINE_LOGFILES,PRIMARY_ROLE) DB_UNIQUE_NAME={unique}_STBY"),
        );
    }
    if spec.planted.rac {
        values.insert("cluster_database".into(), "TRUE".into());
    }
    for (name, value) in &spec.parameters {
        values.insert(name.to_lowercase(), value.clone());
    }
    for dir in [data_dir.to_owned(), wallet_dir(spec), format!("{}/dbs", spec.home)] {
        let path = host_path(&dir);
        std::fs::create_dir_all(&path).map_err(|e| Ora::io(&path, &e))?;
    }
    let passwords = host_path(&format!("{}/dbs/orapw{}", spec.home, spec.sid));
    crate::env::write_atomic(&passwords, b"ORACLE Remote Password file\n", 0o640).map_err(|e| Ora::io(&passwords, &e))?;
    let name =
        if spec.no_spfile { params::pfile_name(&spec.home, &spec.sid) } else { params::spfile_name(&spec.home, &spec.sid) };
    params::write(&name, &values)
}

/// One sqlnet.ora serves every database of a home (H16), so the directory names the SID by variable.
fn write_sqlnet(spec: &DatabaseSpec) -> Result<()> {
    if spec.style != Style::Sqlnet || matches!(spec.source, Source::None) {
        return Ok(());
    }
    let path = host_path(&spec.home).join("network/admin/sqlnet.ora");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    if params::sqlnet_parameter(&text, "ENCRYPTION_WALLET_LOCATION").is_some() {
        return Ok(());
    }
    let dir = spec.wallet_dir.clone().unwrap_or_else(|| format!("{}/admin/$ORACLE_SID/wallet", spec.base));
    let value = match &spec.source {
        Source::Hsm { auto_open: None, .. } => "ENCRYPTION_WALLET_LOCATION=\n  (SOURCE=(METHOD=HSM))\n".to_owned(),
        Source::Hsm { .. } => {
            format!("ENCRYPTION_WALLET_LOCATION=\n  (SOURCE=(METHOD=HSM)\n    (METHOD_DATA=(DIRECTORY={dir})))\n")
        }
        _ => format!("ENCRYPTION_WALLET_LOCATION=\n  (SOURCE=(METHOD=FILE)\n    (METHOD_DATA=(DIRECTORY={dir})))\n"),
    };
    let text = if text.is_empty() {
        format!(
            "# sqlnet.ora Network Configuration File\n# Generated by Oracle configuration tools.\n\nNAMES.DIRECTORY_PATH= (TNSNAMES, EZCONNECT)\n\nSQLNET.EXPIRE_TIME = 10\n{value}\nDIAG_ADR_ENABLED = on\n"
        )
    } else {
        format!("{}\n{value}", text.trim_end_matches('\n'))
    };
    crate::env::write_atomic(&path, text.as_bytes(), 0o644).map_err(|e| Ora::io(&path, &e))
}

fn write_oratab(spec: &DatabaseSpec) -> Result<()> {
    use std::io::Write as _;
    let path = host_path("/etc/oratab");
    let flag = if spec.autostart { "Y" } else { "N" };
    // Appended in place: oracle owns the file and not the directory.
    std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(&path)
        .and_then(|mut file| writeln!(file, "{}:{}:{flag}", spec.sid, spec.home))
        .map_err(|e| Ora::io(&path, &e))
}

fn guid(rng: &mut ChaCha8Rng) -> String {
    let bytes: [u8; 16] = rng.random();
    hex::encode_upper(bytes)
}

fn container(con_id: u32, name: &str, isolated: bool, rng: &mut ChaCha8Rng) -> Container {
    Container {
        con_id,
        name: name.into(),
        guid: guid(rng),
        dbid: rng.random_range(1_000_000_000..4_000_000_000),
        isolated,
        db_key: None,
        active: None,
        activations: BTreeMap::new(),
        migrated: false,
    }
}

fn control(spec: &DatabaseSpec, data_dir: &str, rng: &mut ChaCha8Rng) -> Control {
    let mut containers = Vec::new();
    let mut wanted: Vec<(u32, Option<&str>, &[TablespaceSpec])> = Vec::new();
    if spec.cdb {
        containers.push(container(1, "CDB$ROOT", false, rng));
        containers.push(container(2, "PDB$SEED", false, rng));
        wanted.push((1, None, &spec.tablespaces));
        wanted.push((2, Some("pdbseed"), &[]));
        for (con_id, pdb) in (3..).zip(&spec.pdbs) {
            containers.push(container(con_id, &pdb.name.to_uppercase(), pdb.isolated, rng));
            wanted.push((con_id, Some(&pdb.name), &pdb.tablespaces));
        }
    } else {
        containers.push(container(0, &spec.sid.to_uppercase(), false, rng));
        wanted.push((0, None, &spec.tablespaces));
    }
    let mut tablespaces = Vec::new();
    let mut file_id = 0;
    for (con_id, pdb, own) in wanted {
        let dir = match pdb {
            Some("pdbseed") => format!("{data_dir}/pdb$seed"),
            Some(name) => format!("{data_dir}/{}", name.to_lowercase()),
            None => data_dir.to_owned(),
        };
        let undo_encrypted = spec.encrypted_undo && con_id != 2;
        let mut add = |ts: u32, name: &str, contents: &str, status: TsStatus, encrypted: bool| {
            file_id += 1;
            tablespaces.push(Tablespace {
                con_id,
                ts,
                file_id,
                name: name.to_uppercase(),
                file: format!("{dir}/{}01.dbf", name.to_lowercase()),
                contents: contents.into(),
                status,
                encrypted,
            });
        };
        add(0, "SYSTEM", "PERMANENT", TsStatus::Online, false);
        add(1, "SYSAUX", "PERMANENT", TsStatus::Online, false);
        add(2, "UNDOTBS1", "UNDO", TsStatus::Online, undo_encrypted);
        for (ts, own) in (4..).zip(own) {
            add(ts, &own.name, "PERMANENT", own.status, own.encrypted);
        }
    }
    let created = now() - 400.0;
    let dbid = containers.first().map_or(0, |c| c.dbid);
    Control {
        sid: spec.sid.clone(),
        db_name: spec.sid.to_uppercase(),
        db_unique_name: spec.db_unique_name.clone().unwrap_or_else(|| spec.sid.clone()),
        dbid,
        cdb: spec.cdb,
        version: spec.version.clone(),
        created,
        archivelog: spec.archivelog,
        clean: true,
        scn: 1000,
        checkpoint_scn: 1000,
        containers,
        tablespaces,
        logs: (1..=3)
            .map(|group| Log {
                group,
                sequence: if group == 1 { 1 } else { 0 },
                current: group == 1,
                archived: group != 1,
                first_scn: if group == 1 { 900 } else { 0 },
                next_scn: None,
                first_time: now(),
                file: format!("{data_dir}/redo{group:02}.log"),
            })
            .collect(),
        archived: Vec::new(),
        planted: spec.planted.clone(),
    }
}

/// The keystores of the source.
struct Keys {
    kind: Option<Kind>,
    body: Body,
    by_container: HashMap<u32, Mkid>,
}

impl Keys {
    fn prepare(spec: &DatabaseSpec, instance: &mut Instance) -> Result<Keys> {
        let kind = match &spec.source {
            Source::Hsm { pin, .. } => {
                instance.provider.load(TwoLibraries::Error)?.login(pin)?;
                Some(Kind::Hsm)
            }
            Source::Software { .. } => Some(Kind::File),
            Source::None => None,
        };
        Ok(Keys { kind, body: Body::default(), by_container: HashMap::new() })
    }

    /// The container's master key, made at its first use.
    fn master(&mut self, instance: &mut Instance, con: u32) -> Result<(Kind, Mkid)> {
        let Some(kind) = self.kind else { ora!(28361) };
        if let Some(mkid) = self.by_container.get(&con) {
            return Ok((kind, mkid.clone()));
        }
        let mkid = Mkid::random();
        let container = instance.container(con)?.clone();
        let meta = KeyMeta {
            created: instance.control()?.created + 1.0,
            con_id: con,
            container: container.name.clone(),
            pdb_guid: container.guid.clone(),
            db_name: instance.control()?.db_name.clone(),
            dbid: container.dbid,
            tag: None,
        };
        let store = match kind {
            Kind::Hsm => {
                let lib = instance.provider.load(TwoLibraries::Error)?;
                lib.generate(&mkid, &meta)?;
                lib.vendor.map_or("hsm", |v| v.name()).to_owned()
            }
            Kind::File => {
                let key: Key = crypto::random();
                let key = WalletKey { key: hex::encode(key), meta };
                self.body.keys.insert(mkid.clone(), key);
                "software".to_owned()
            }
        };
        instance.ledger.keys.push(KeyBirth { mkid: mkid.clone(), kind, store: store.clone(), container: container.name });
        self.by_container.insert(con, mkid.clone());
        let db_key = self.wrap(instance, kind, &mkid, &crypto::random())?;
        let created = instance.control()?.created + 1.0;
        let container = instance.container_mut(con)?;
        container.db_key = Some(db_key);
        container.active = Some(Active { mkid: mkid.clone(), kind, store });
        container.activations.insert(mkid.clone(), created);
        Ok((kind, mkid))
    }

    fn wrap(&self, instance: &mut Instance, kind: Kind, mkid: &Mkid, key: &Key) -> Result<Wrapped> {
        instance.wrap(kind, mkid, Some(&self.body), key)
    }

    fn sealed(&mut self, instance: &mut Instance, con: u32) -> Result<(Key, Wrapped)> {
        let (kind, mkid) = self.master(instance, con)?;
        let key: Key = crypto::random();
        let wrapped = self.wrap(instance, kind, &mkid, &key)?;
        Ok((key, wrapped))
    }

    /// Writes the keystore files.
    fn finish(mut self, spec: &DatabaseSpec) -> Result<()> {
        let dir = host_path(&keystore_dir(spec));
        let (password, auto) = match &spec.source {
            Source::Software { password, auto_login } => (password.clone(), *auto_login),
            Source::Hsm { pin, auto_open: Some(auto) } => {
                self.body.secrets.insert("HSM_PASSWORD".into(), pin.clone());
                (auto.software_password.clone(), Some(auto.auto_login))
            }
            _ => return Ok(()),
        };
        std::fs::create_dir_all(&dir).map_err(|e| Ora::io(&dir, &e))?;
        wallet::save(&dir, &password, &self.body).map_err(|_| Ora::new(46633))?;
        let sso = auto.map(|auto| match auto {
            AutoLogin::Auto => SsoKind::Auto,
            AutoLogin::Local => SsoKind::Local,
        });
        if let Some(kind) = sso {
            wallet::save_sso(&dir, kind, &self.body).map_err(|_| Ora::new(46633))?;
        }
        Ok(())
    }
}

fn fill(spec: &DatabaseSpec, instance: &mut Instance, keys: &mut Keys, rng: &mut ChaCha8Rng) -> Result<Truth> {
    let mut truth = Truth { sid: spec.sid.clone(), home: spec.home.clone(), rows_total: 0, containers: BTreeMap::new() };
    let empty: &[TablespaceSpec] = &[];
    for container in instance.control()?.containers.clone() {
        let con = container.con_id;
        let own: &[TablespaceSpec] = match con {
            0 | 1 => &spec.tablespaces,
            2 => empty,
            _ => &spec.pdbs[con as usize - 3].tablespaces,
        };
        let mut dictionary = Dictionary::default();
        if spec.encrypted_system && con != 2 {
            dictionary.header = Some(keys.sealed(instance, con)?.1);
        }
        let spaces: Vec<Tablespace> =
            instance.control()?.tablespaces.iter().filter(|t| t.con_id == con && t.name != "SYSTEM").cloned().collect();
        for space in spaces {
            let mut data = DataFile::default();
            let mut key = None;
            if space.encrypted {
                let (plain, wrapped) = keys.sealed(instance, con)?;
                key = Some(plain);
                data.header = Some(wrapped);
            }
            let tables = own.iter().find(|t| t.name.eq_ignore_ascii_case(&space.name)).map_or(&[][..], |t| t.tables.as_slice());
            for table in tables {
                let name = table.name.to_uppercase();
                let columns: BTreeSet<String> = table.encrypted_columns.iter().map(|c| c.to_uppercase()).collect();
                let columns: Vec<String> = columns.into_iter().collect();
                let mut column_key = None;
                if !columns.is_empty() {
                    let (plain, wrapped) = keys.sealed(instance, con)?;
                    dictionary.enc.push(EncRow {
                        table: name.clone(),
                        tablespace: space.name.clone(),
                        columns: columns.clone(),
                        key: wrapped,
                    });
                    column_key = Some((columns, plain));
                }
                let mut rows = Vec::new();
                let mut digests = Vec::new();
                for id in 1..=table.rows {
                    let payload: u64 = rng.random();
                    let row = serde_json::json!({
                        "ID": id,
                        "NAME": format!("{name} {id}"),
                        "PAYLOAD": format!("{payload:016x}"),
                    });
                    digests.push(crypto::sha256_hex(row.to_string().as_bytes()));
                    rows.push(seal_row(&row, &name, key.as_ref(), column_key.as_ref()));
                }
                truth.rows_total += u64::from(table.rows);
                truth.containers.entry(container.name.clone()).or_default().insert(
                    name.clone(),
                    TruthTable {
                        tablespace: space.name.clone(),
                        encrypted: space.encrypted || column_key.is_some(),
                        rows: digests,
                    },
                );
                data.tables.push(Table { name, rows });
            }
            instance.files.save_data(&space, &data)?;
        }
        // The root of an encrypted CDB has a key, whether or not a tablespace of it is encrypted.
        let pdbs_encrypted = spec.pdbs.iter().any(|p| p.tablespaces.iter().any(|t| t.encrypted));
        if con < 2 && keys.kind.is_some() && (pdbs_encrypted || !keys.by_container.contains_key(&con)) {
            keys.master(instance, con)?;
        }
        instance.files.save_dictionary(&container, &dictionary)?;
    }
    Ok(truth)
}
