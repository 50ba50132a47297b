/* The part of CUDA 12.6's crt/host_config.h that names the host compilers. */
#if defined(_WIN32)
#if _MSC_VER < 1910 || _MSC_VER >= 1950
#error -- unsupported Microsoft Visual Studio version! Only the versions between 2017 and 2022 (inclusive) are supported!
#endif /* _MSC_VER < 1910 || _MSC_VER >= 1950 */
#endif /* _WIN32 */
