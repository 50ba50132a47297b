// Stands for the Windows SDK's header where the Windows branch of the allocator is built on Linux.
#pragma once
typedef long SSIZE_T;
