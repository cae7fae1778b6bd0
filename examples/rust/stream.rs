//! A model file stepped through from Rust, by the C ABI alone:
//!
//!     lib=$(python -c "import fusedrnn, os; print(os.path.dirname(fusedrnn.get_include()))")
//!     rustc -O stream.rs -C link-arg=$lib/libfusedrnn.so.1 -C link-arg=-Wl,-rpath,$lib
//!     ./stream model.frnn 100
//!
//! Prints the last layer's output after so many steps of a ramp, of a network of float32.
use std::ffi::{c_char, c_int, c_void, CStr, CString};

#[repr(C)]
#[derive(Default)]
struct NetworkInfo {
    num_runs: i32, num_parameters: i32, num_states: i32,
    input_size: i64, output_size: i64,
    code: u8, bits: u8, lanes: u16, compute: i32,
}

#[repr(C)]
struct ArrayInfo { name: *const c_char, run: i32, optional: i32, ndim: i32, shape: [i64; 2] }

#[repr(C)]
struct Opaque { _private: [u8; 0] }

extern "C" {
    fn fusedrnn_frozen_load(path: *const c_char, frozen: *mut *mut Opaque) -> c_int;
    fn fusedrnn_frozen_free(frozen: *mut Opaque);
    fn fusedrnn_frozen_network(frozen: *const Opaque) -> *const Opaque;
    fn fusedrnn_network_describe(network: *const Opaque, info: *mut NetworkInfo) -> c_int;
    fn fusedrnn_network_state(network: *const Opaque, index: i32, info: *mut ArrayInfo) -> c_int;
    fn fusedrnn_frozen_workspace(frozen: *const Opaque, batch: i64) -> usize;
    fn fusedrnn_frozen_step(frozen: *const Opaque, batch: i64, x: *const c_void, prev: *const *const c_void,
                            next: *const *mut c_void, workspace: *mut c_void) -> c_int;
    fn fusedrnn_last_error() -> *const c_char;
}

fn check(status: c_int) -> Result<(), String> {
    if status == 0 { return Ok(()); }
    Err(unsafe { CStr::from_ptr(fusedrnn_last_error()) }.to_string_lossy().into_owned())
}

/// Steps of one sequence, from zero states on.
struct Stream { frozen: *mut Opaque, info: NetworkInfo, states: Vec<Vec<f32>>, output: usize, workspace: Vec<[u64; 8]> }

impl Stream {
    fn load(path: &str) -> Result<Stream, String> {
        let path = CString::new(path).map_err(|error| error.to_string())?;
        let mut stream = Stream { frozen: std::ptr::null_mut(), info: NetworkInfo::default(), states: vec![],
                                  output: 0, workspace: vec![] };
        unsafe {
            check(fusedrnn_frozen_load(path.as_ptr(), &mut stream.frozen))?;
            let network = fusedrnn_frozen_network(stream.frozen);
            check(fusedrnn_network_describe(network, &mut stream.info))?;
            if (stream.info.code, stream.info.bits) != (2, 32) { return Err("expected float32".into()); }
            for i in 0..stream.info.num_states {
                let mut state = std::mem::zeroed::<ArrayInfo>();
                check(fusedrnn_network_state(network, i, &mut state))?;
                if CStr::from_ptr(state.name).to_bytes() == b"h" { stream.output = i as usize; }
                stream.states.push(vec![0.0; state.shape[0] as usize]);
            }
            let bytes = fusedrnn_frozen_workspace(stream.frozen, 1);
            if bytes == 0 { check(1)?; }
            stream.workspace = vec![[0; 8]; bytes / 64 + 2]; // room to align it to 64 bytes
        }
        Ok(stream)
    }

    fn step(&mut self, x: &[f32]) -> Result<&[f32], String> {
        assert_eq!(x.len(), self.info.input_size as usize);
        let next: Vec<*mut c_void> = self.states.iter_mut().map(|s| s.as_mut_ptr() as *mut c_void).collect();
        let memory = self.workspace.as_mut_ptr() as *mut u8;
        check(unsafe {
            fusedrnn_frozen_step(self.frozen, 1, x.as_ptr() as *const c_void, next.as_ptr() as *const *const c_void,
                                 next.as_ptr(), memory.add(memory.align_offset(64)) as *mut c_void)
        })?;
        Ok(&self.states[self.output])
    }
}

impl Drop for Stream {
    fn drop(&mut self) { unsafe { fusedrnn_frozen_free(self.frozen) } }
}

fn main() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().collect();
    let steps = arguments.get(2).and_then(|n| n.parse().ok()).filter(|n| *n > 0).ok_or("usage: stream MODEL STEPS")?;
    let mut stream = Stream::load(&arguments[1])?;
    let x: Vec<f32> = (0..stream.info.input_size).map(|i| i as f32 / 8.0).collect();
    for _ in 1..steps { stream.step(&x)?; }
    println!("{:?}", stream.step(&x)?);
    Ok(())
}
